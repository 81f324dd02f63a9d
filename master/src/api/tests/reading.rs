//! What is shown: fields, lists, filters, pages, history, and that nothing of the monitored world is markup.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shared::check::State::{Critical, Down, Ok as Good, Unknown, Up, Warning};
use shared::command::{Passive, What};
use shared::delivery::{GapRecord, reason};
use shared::name::{JournalIndex, RunId, Sequence};

use super::rig::{LONG, Rig, catalog, get, name, slot};
use crate::api::document;
use crate::entry::{Asked, Entry, Gap, Outcomes, WriterGap};

const OBJECTS: [&str; 8] =
    ["eu-db", "eu-db!disk /", "eu-db!load", "eu-web", "eu-web!load", "us-app", "us-app!disk /var", "us-app!load"];

/// An installation with something of everything.
async fn varied(data: &std::path::Path) -> Rig {
    let mut rig = Rig::open(data, &OBJECTS).await;
    rig.claim(slot("eu", 1)).await;
    rig.claim(slot("us", 1)).await;
    for _ in 0..3 {
        rig.results(&[("eu-db", Up, "up"), ("eu-db!load", Critical, "load 99"), ("eu-db!disk /", Warning, "90 %")])
            .await;
    }
    rig.results(&[("eu-web", Up, "up"), ("eu-web!load", Unknown, "no answer")]).await;
    rig.results(&[("us-app", Down, "refused"), ("us-app!load", Good, "load 1")]).await;
    rig
}

#[tokio::test]
async fn problems_come_worst_first_and_every_documented_field_is_there() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let address = rig.serve(true).await;
    let problems = get(address, "/api/v1/problems").await;
    assert_eq!(problems.names(), ["us-app", "eu-db!load", "eu-web!load", "eu-db!disk /"]);
    let document: Value = serde_json::from_str(document::DOCUMENT).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let schema = |name: &str| keys(&document["components"]["schemas"][name]["properties"]);
    let item = |value: Value| value["items"][0].clone();
    assert_eq!(keys(&item(problems.json())), schema("Object"));
    for (path, name) in [("slots", "Slot"), ("regions", "Region"), ("revisions", "Revision")] {
        let shown = get(address, &format!("/api/v1/{path}")).await.json();
        let mut shown = keys(&item(shown));
        let mut expected = schema(name);
        shown.sort();
        expected.sort();
        assert_eq!(shown, expected, "{path}");
    }
    let hard = get(address, "/api/v1/services/eu-db/load").await.json();
    assert_eq!(
        (&hard["state"], &hard["state_type"], &hard["attempt"]),
        (&json!("CRITICAL"), &json!("HARD"), &json!(3))
    );
    assert_eq!((&hard["region"], &hard["slot"], &hard["stale"]), (&json!("eu"), &json!(1), &json!(false)));
    assert_eq!(
        (&hard["acknowledged"], &hard["downtime_depth"], &hard["reachable"]),
        (&json!(false), &json!(0), &json!(true))
    );
    assert!(hard["next_check"].as_str().unwrap() > hard["last_check"].as_str().unwrap());
    assert!(hard["last_hard_change"].as_str().unwrap() > hard["last_change"].as_str().unwrap());
    assert_eq!(get(address, "/api/v1/services/eu-db/disk%20%2F").await.json()["output"], "90 %");
    let pending = get(address, "/api/v1/services/us-app/disk%20%2Fvar").await.json();
    assert_eq!(
        (&pending["state"], &pending["max_attempts"], &pending["last_check"]),
        (&json!("PENDING"), &json!(3), &Value::Null)
    );
    rig.link(&slot("eu", 1), false);
    assert_eq!(get(address, "/api/v1/hosts/eu-db").await.json()["stale"], true);
    rig.stop().await;
}

#[tokio::test]
async fn filters_sort_and_pages_give_the_same_objects_as_the_whole() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let address = rig.serve(true).await;
    let services = async |query: &str| get(address, &format!("/api/v1/services?{query}")).await.names();
    assert_eq!(services("filter=region%3Dus").await, ["us-app!disk /var", "us-app!load"]);
    assert_eq!(services("filter=state%3Dcritical+state%3DUNKNOWN").await, ["eu-db!load", "eu-web!load"]);
    assert_eq!(services("filter=service%3D%22disk%20*%22%20host!%3Deu*").await, ["us-app!disk /var"]);
    assert_eq!(services("filter=problem%3Dtrue+state_type%3DSOFT").await, ["eu-web!load"]);
    assert_eq!(services("filter=group%3Dus+LOAD").await, ["us-app!load"]);
    assert_eq!(
        services("sort=service").await,
        ["eu-db!disk /", "us-app!disk /var", "eu-db!load", "eu-web!load", "us-app!load"]
    );
    assert_eq!(services("sort=-state&limit=2").await, ["eu-db!load", "eu-web!load"]);
    for sort in ["host", "-host", "-severity", "last_change", "-last_check", "region"] {
        let whole = services(&format!("sort={sort}")).await;
        let (mut joined, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(address, &format!("/api/v1/services?sort={sort}&limit=2{cursor}")).await;
            joined.extend(page.names());
            assert_eq!(page.json()["total"], 5);
            match page.json()["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(joined, whole, "{sort}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_wrong_in_a_question_is_named_with_its_place() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let address = rig.serve(true).await;
    for (path, status, place, words) in [
        ("services?filter=hst%3Dx", 400, "filter", "did you mean `host`?"),
        ("services?filter=state%3DCRITICL", 400, "filter", "did you mean `CRITICAL`?"),
        ("services?sort=stat", 400, "sort", "did you mean `state`?"),
        ("services?limt=3", 400, "limt", "did you mean `limit`?"),
        ("services?limit=1001", 400, "limit", "1000"),
        ("services?cursor=zz", 400, "cursor", "`next`"),
        ("slots?filter=regon%3Deu", 400, "filter", "did you mean `region`?"),
        ("events?kind=transitions", 400, "kind", "transition"),
        ("events?from=noon", 400, "from", "2026-01-31T12:00:00Z"),
        ("stream?since=abc", 400, "since", "number"),
        ("hosts/eu-xx", 404, "", "no host “eu-xx”"),
        ("services/eu-db/xx", 404, "", "no service “xx” on host “eu-db”"),
        ("servces", 404, "", "openapi.json"),
    ] {
        let answer = get(address, &format!("/api/v1/{path}")).await;
        let error = answer.json()["error"].clone();
        assert_eq!(answer.status.as_u16(), status, "{path}: {error}");
        assert_eq!(error["where"].as_str().unwrap_or_default(), place, "{path}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{path}: {error}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_configured_no_longer_leaves_the_lists_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    rig.activate(&catalog(&OBJECTS[..5])).await;
    let address = rig.serve(true).await;
    assert_eq!(get(address, "/api/v1/hosts").await.names(), ["eu-db", "eu-web"]);
    let gone = get(address, "/api/v1/hosts/us-app").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert!(gone.json()["error"]["message"].as_str().unwrap().contains("not configured any more"));
    assert!(!get(address, "/api/v1/problems").await.names().contains(&"us-app".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn expected_slots_are_shown_before_they_ever_spoke() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    rig.link(&slot("us", 1), false);
    let address = rig.serve(true).await;
    let slots = get(address, "/api/v1/slots").await.json();
    let shown: Vec<_> = slots["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slot| {
            (
                slot["region"].as_str().unwrap(),
                slot["slot"].as_u64().unwrap(),
                slot["connected"].as_bool().unwrap(),
                slot["checks"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(shown, [("eu", 1, true, 5), ("eu", 2, false, 0), ("us", 1, false, 3)]);
    let missing = get(address, "/api/v1/slots?filter=expected%3Dtrue+connected%3Dfalse&sort=-region").await.json();
    assert_eq!(
        missing["items"].as_array().unwrap().iter().map(|slot| slot["region"].clone()).collect::<Vec<_>>(),
        ["us", "eu"]
    );
    let status = get(address, "/api/v1/status").await.json();
    assert_eq!(status["slots"], json!({ "expected": 3, "connected": 1, "missing": 2, "seen": 2 }));
    assert_eq!(status["services"], json!({ "CRITICAL": 1, "OK": 1, "PENDING": 1, "UNKNOWN": 1, "WARNING": 1 }));
    assert_eq!((&status["problems"], &status["index"]), (&json!(4), &json!(9)));
    let regions = get(address, "/api/v1/regions").await.json();
    assert_eq!((&regions["items"][0]["slots_missing"], &regions["items"][0]["problems"]), (&json!(1), &json!(3)));
    rig.stop().await;
}

#[tokio::test]
async fn the_digest_is_that_of_the_state_at_its_index() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let address = rig.serve(true).await;
    assert!(get(address, "/api/v1/status").await.json().get("state_digest").is_none());
    let told = get(address, "/api/v1/status?digest=1").await.json()["state_digest"].clone();
    let expected: String = Sha256::digest(rig.status().encode()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told, json!({ "index": rig.status().head, "sha256": expected }));
    rig.stop().await;
}

#[tokio::test]
async fn events_and_revisions_come_out_of_history_with_slots_as_everywhere() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let address = rig.serve(true).await;
    let reached = async {
        while get(address, "/api/v1/events?limit=1").await.json()["index"] != 9 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, reached).await.expect("history catches up");
    let events = get(address, "/api/v1/events?kind=transition&host=eu-db&sort=time").await.json();
    let first = &events["items"][0];
    assert_eq!((&first["region"], &first["slot"], &first["kind"]), (&json!("eu"), &json!(1), &json!("transition")));
    let same = get(address, "/api/v1/events?filter=kind%3Dtransition+host%3Deu-db&sort=time").await.json();
    assert_eq!(events["items"], same["items"]);
    let results = get(address, "/api/v1/events?kind=result&limit=3").await.json();
    assert_eq!((results["items"].as_array().unwrap().len(), &results["total"]), (3, &json!(13)));
    let next = results["next"].as_str().unwrap();
    let more = get(address, &format!("/api/v1/events?kind=result&limit=100&cursor={next}")).await.json();
    assert_eq!(more["items"].as_array().unwrap().len(), 10);
    let revisions = get(address, "/api/v1/revisions").await.json();
    let running = &revisions["items"][0];
    assert_eq!(
        (&running["generation"], &running["author"], &running["running"]),
        (&json!(1), &json!("test"), &json!(true))
    );
    rig.stop().await;
}

#[tokio::test]
async fn gaps_are_listed_newest_first_with_what_they_cost() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    for (first, last) in [(1, 4), (10, 10)] {
        let record = GapRecord {
            first: Sequence(first),
            last: Sequence(last),
            reason: "spool-full".into(),
            from: None,
            to: None,
        };
        let gap = Gap { slot: slot("eu", 1), run: RunId([1; 16]), record, explained: first == 1 };
        rig.batch(&[("eu-web", Up, "up")], vec![gap]).await;
    }
    let address = rig.serve(true).await;
    let gaps = get(address, "/api/v1/gaps").await.json();
    let lost: Vec<_> = gaps["items"].as_array().unwrap().iter().map(|gap| gap["lost"].clone()).collect();
    assert_eq!(lost, [1, 4]);
    assert_eq!(gaps["items"][0]["meaning"], json!(reason::meaning(reason::SPOOL_FULL).unwrap()));
    let document: Value = serde_json::from_str(document::DOCUMENT).unwrap();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(fields(&gaps["items"][0]), fields(&document["components"]["schemas"]["Gap"]["properties"]));
    assert_eq!(get(address, "/api/v1/gaps?filter=explained%3Dfalse").await.json()["total"], 1);

    let gap = WriterGap {
        writer: "graphite-a".to_owned(),
        lane: "metrics".to_owned(),
        first: JournalIndex(3),
        last: JournalIndex(9),
        reason: "journal-bytes".to_owned(),
    };
    rig.add(Entry::WriterGap(gap), Outcomes::default()).await;
    let newest = get(address, "/api/v1/gaps").await.json()["items"][0].clone();
    assert_eq!(
        (&newest["writer"], &newest["first"], &newest["last"], &newest["reason"]),
        (&json!("graphite-a"), &json!(3), &json!(9), &json!("journal-bytes"))
    );
    assert!(newest["lost"].is_null() && newest["region"].is_null());
    assert!(newest["meaning"].as_str().unwrap().contains("--journal-bytes") && newest["open_ended"] == false);
    assert_eq!(get(address, "/api/v1/gaps?filter=writer%3Dgraphite*").await.json()["total"], 1);
    rig.stop().await;
}

#[tokio::test]
async fn commands_that_wait_are_listed_oldest_first_with_whom_they_wait_for() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = varied(data.path()).await;
    let passive = What::Passive(Passive { state: Critical, text: "x".repeat(300) });
    for (object, what) in [("eu-web!load", What::CheckNow), ("us-app", passive), ("us-app!load", What::Reset)] {
        let check = rig.status().id(&name(object)).unwrap();
        rig.add(Entry::Asked(Asked { check, what, author: "ann".to_owned() }), Outcomes::default()).await;
    }
    rig.link(&slot("us", 1), false);
    let address = rig.serve(true).await;
    let list = get(address, "/api/v1/commands").await;
    assert_eq!(list.names(), ["eu-web!load", "us-app", "us-app!load"]);
    let list = list.json();
    let document: Value = serde_json::from_str(document::DOCUMENT).unwrap();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let documented = &document["components"]["schemas"]["WaitingCommand"]["properties"];
    assert_eq!(fields(&list["items"][0]), fields(documented));
    let shown = |number: usize, field: &str| list["items"][number][field].clone();
    assert_eq!(
        (shown(0, "what"), shown(0, "author"), shown(0, "told")),
        (json!("check-now"), json!("ann"), json!(true))
    );
    assert_eq!((shown(0, "state"), shown(0, "reason")), (Value::Null, Value::Null));
    assert!(shown(0, "waiting_seconds").as_u64() > shown(2, "waiting_seconds").as_u64());
    assert_eq!((shown(1, "region"), shown(1, "slot")), (json!("us"), json!(1)));
    assert_eq!(
        (shown(1, "told"), shown(1, "reason"), shown(1, "state")),
        (json!(false), json!("silent"), json!("DOWN"))
    );
    assert_eq!(shown(1, "output"), json!(format!("{}…", "x".repeat(200))));
    let silent = get(address, "/api/v1/commands?filter=told%3Dfalse&limit=1").await.json();
    assert_eq!((&silent["total"], silent["next"].is_null()), (&json!(2), false));
    assert_eq!(get(address, "/api/v1/commands?filter=wat%3D1").await.status, StatusCode::BAD_REQUEST);
    rig.stop().await;
}

#[tokio::test]
async fn hostile_texts_are_text_on_the_page_in_the_metrics_and_in_json() {
    let data = tempfile::tempdir().unwrap();
    let hostile = "eu-<script>alert(1)</script>";
    let service = format!("{hostile}!\"><img src=x onerror=alert(2)>");
    let mut rig = Rig::open(data.path(), &[hostile, &service]).await;
    rig.claim(slot("eu", 1)).await;
    let output = "</td><script>alert('3')</script>\u{1b}]0;x\u{7}";
    for _ in 0..3 {
        rig.results(&[(hostile, Down, output), (&service, Critical, output)]).await;
    }
    let address = rig.serve(true).await;
    let page = crate::api::page::render(&rig.shown(), super::rig::clock());
    for raw in ["<script>", "<img", "\u{1b}", "\u{7}"] {
        assert!(!page.contains(raw), "{raw:?} in {page}");
    }
    assert!(page.contains("&lt;script&gt;alert(&#39;3&#39;)&lt;/script&gt;") && page.contains("missing"), "{page}");
    let problems = get(address, "/api/v1/problems").await.json();
    assert_eq!(problems["items"][0]["output"], output);
    let metrics = get(address, "/api/v1/metrics").await;
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in metrics.text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.text.contains("perigee_objects{kind=\"host\",state=\"DOWN\"} 1\n"), "{}", metrics.text);
    assert!(metrics.text.contains("perigee_slot_connected{region=\"eu\",slot=\"1\"} 1\n"));
    rig.stop().await;
}
