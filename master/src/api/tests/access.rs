//! Who may: every line of the table of routes against every kind of caller.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;

use super::rig::{Listener, Rig, ask, ask_locally, ask_with, get};
use crate::api::token::{self, Role};
use crate::api::{self, Applied, Listeners, Request, document, route};
use crate::config::{Sources, compile};

/// A path with its names filled in by things that are there.
fn filled(path: &str) -> String {
    format!("{}{}", route::ROOT, path.replace("{host}", "eu-web").replace("{service}", "load"))
}

/// Whether an answer is one that the guard gave.
fn refused(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Answers every request to apply, so that the route can be asked like the others.
fn answering(rig: &mut Rig) {
    let mut requests = std::mem::replace(&mut rig.requests, tokio::sync::mpsc::channel(1).1);
    tokio::spawn(async move {
        while let Some(Request::Apply { reply, .. }) = requests.recv().await {
            let _ = reply.send(Applied::Unchanged { generation: shared::name::Generation(1), warnings: Vec::new() });
        }
    });
}

/// The status of a request whose body may never end.
async fn status(address: std::net::SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> StatusCode {
    if path.ends_with("/stream") && !headers.is_empty() {
        // Refused streams end, open ones do not: ask for one that is refused for its parameter after the guard.
        return ask(address, method, &format!("{path}?results=x"), headers).await.status;
    }
    let path = if path.ends_with("/stream") { format!("{path}?results=x") } else { path.to_owned() };
    ask(address, method, &path, headers).await.status
}

#[tokio::test]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web", "eu-web!load"]).await;
    answering(&mut rig);
    let address = rig.serve(false).await;
    let tokens = [Role::Read, Role::Operate, Role::Admin]
        .map(|role| (role, format!("Bearer {}", token::create(data.path(), role, "t").unwrap().token)));
    let table = route::table();
    assert!(table.len() >= 15);
    for route in &table {
        let path = filled(route.path);
        let at = format!("{} {path}", route.method);
        assert_eq!(status(address, route.method, &path, &[]).await, StatusCode::UNAUTHORIZED, "{at} without token");
        for wrong in ["Bearer pgt1.0000000000.00", "Bearer", "Basic eDp5", "pgt1"] {
            let shown = status(address, route.method, &path, &[("authorization", wrong)]).await;
            assert_eq!(shown, StatusCode::UNAUTHORIZED, "{at} with {wrong}");
        }
        for (role, token) in &tokens {
            let shown = status(address, route.method, &path, &[("authorization", token)]).await;
            if *role < route.role {
                assert_eq!(shown, StatusCode::FORBIDDEN, "{at} with role {role:?}");
            } else {
                assert!(!refused(shown) && shown != StatusCode::NOT_FOUND, "{at} with role {role:?}: {shown}");
            }
        }
        let local = if route.path == "/stream" { format!("{path}?results=x") } else { path };
        assert!(!refused(ask_locally(data.path(), route.method, &local).await.status), "{at} on the local socket");
    }
    rig.stop().await;
}

#[tokio::test]
async fn open_reads_are_reads_by_a_name_of_this_machine() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web", "eu-web!load"]).await;
    answering(&mut rig);
    let address = rig.serve(true).await;
    for route in route::table() {
        let path = filled(route.path);
        let shown = status(address, route.method, &path, &[]).await;
        assert_eq!(refused(shown), route.role > Role::Read, "{} {path}: {shown}", route.method);
        let other = status(address, route.method, &path, &[("host", "rebound.example:80")]).await;
        assert_eq!(other, StatusCode::UNAUTHORIZED, "{} {path} by another name", route.method);
        let wrong = status(address, route.method, &path, &[("authorization", "Bearer x")]).await;
        assert_eq!(wrong, StatusCode::UNAUTHORIZED, "{} {path}: a wrong token is not as good as none", route.method);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_revoked_token_stops_requests_at_once_and_streams_within_five_seconds() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let address = rig.serve(false).await;
    let made = token::create(data.path(), Role::Read, "wall").unwrap();
    let bearer = format!("Bearer {}", made.token);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(ask(address, "GET", "/api/v1/status", &headers).await.status, StatusCode::OK);
    let mut listener = Listener::connect(address, "/api/v1/stream", &headers).await;
    token::revoke(data.path(), &made.id).unwrap();
    assert_eq!(ask(address, "GET", "/api/v1/status", &headers).await.status, StatusCode::UNAUTHORIZED);
    let ended = tokio::time::timeout(Duration::from_secs(5), listener.next()).await;
    assert!(ended.expect("the stream ends within five seconds").is_none());
    rig.stop().await;
}

#[tokio::test]
async fn the_local_socket_is_its_owners_and_goes_with_the_master() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let socket = data.path().join(api::SOCKET);
    // What a killed master left behind is in nobody's way.
    fs::write(&socket, "").unwrap();
    rig.serve(false).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask_locally(data.path(), "GET", "/api/v1/status").await.status, StatusCode::OK);
    rig.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn what_other_machines_reach_is_never_plain_and_never_open() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    rig.serve(false).await;
    let inputs = rig.inputs();
    let listeners = |tcp: &str, open_reads| Listeners {
        tcp: Some(tcp.parse().unwrap()),
        tls: None,
        unix: data.path().join("other.sock"),
        open_reads,
    };
    let refused = async |listeners| {
        api::serve(listeners, inputs.clone(), tokio_util::sync::CancellationToken::new()).await.unwrap_err().to_string()
    };
    assert!(refused(listeners("0.0.0.0:0", false)).await.contains("--tls-certificate"));
    let with_tls = Listeners { tls: Some(("a".into(), "b".into())), ..listeners("0.0.0.0:0", true) };
    assert!(refused(with_tls).await.contains("--open-reads"));
    let unusable = Listeners { tls: Some(("/gone.crt".into(), "/gone.key".into())), ..listeners("127.0.0.1:0", false) };
    assert!(refused(unusable).await.contains("/gone.key"));
    drop(inputs);
    rig.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_a_browser_in_bounds() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let address = rig.serve(false).await;
    for path in ["/", "/plain.css", "/nothing", "/api/v1/status", "/api/v1/nothing", "/api"] {
        let answer = get(address, path).await;
        let header =
            |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        if path.starts_with("/api") {
            assert_eq!(header("cache-control"), "no-store", "{path}");
            assert!(answer.json()["error"]["code"].is_string(), "{path}: {}", answer.text);
        }
    }
    let wrong = ask(address, "DELETE", "/api/v1/status", &[]).await;
    assert!(matches!(wrong.status, StatusCode::UNAUTHORIZED | StatusCode::METHOD_NOT_ALLOWED), "{}", wrong.status);
    rig.stop().await;
}

#[tokio::test]
async fn an_apply_is_told_how_it_ended_and_names_its_author() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    let address = rig.serve(false).await;
    let made = token::create(data.path(), Role::Admin, "ann").unwrap();
    let bearer = format!("Bearer {}", made.token);
    let mistakes = compile(&Sources::from_texts([("a.yaml", "hosts:\n  web: { intervall: 1m }\n")])).unwrap_err();
    let answers = [
        Applied::Activated {
            generation: shared::name::Generation(2),
            added: 1,
            changed: 2,
            removed: 3,
            warnings: Vec::new(),
        },
        Applied::mistakes(mistakes),
        Applied::Failed("the disk is full".to_owned()),
    ];
    let mut shown = Vec::new();
    for applied in answers {
        let headers = [("authorization", bearer.as_str())];
        let asked = ask(address, "POST", "/api/v1/actions/apply", &headers);
        let answered = async {
            let Some(Request::Apply { author, reply }) = rig.requests.recv().await else { panic!("no request") };
            assert_eq!(author, "ann");
            reply.send(applied).unwrap();
        };
        shown.push(tokio::join!(asked, answered).0);
    }
    assert_eq!((shown[0].status, &shown[0].json()["added"]), (StatusCode::OK, &1.into()));
    let wrong = shown[1].json();
    assert_eq!(shown[1].status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong["error"]["code"], "config-mistakes");
    assert!(wrong["error"]["where"].as_str().unwrap().starts_with("a.yaml:2:"), "{wrong}");
    assert!(wrong["text"].as_str().unwrap().contains("^^^^"), "{wrong}");
    assert!(wrong["diagnostics"].as_array().unwrap().iter().all(|found| found["line"].is_u64()));
    assert_eq!(shown[2].status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(shown[2].json()["error"]["message"].as_str().unwrap().contains("disk is full"));
    rig.stop().await;
}

#[tokio::test]
async fn a_body_beyond_its_bound_is_not_taken_in() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &["eu-web"]).await;
    answering(&mut rig);
    let address = rig.serve(false).await;
    let made = token::create(data.path(), Role::Admin, "ann").unwrap();
    let bearer = format!("Bearer {}", made.token);
    let headers = [("authorization", bearer.as_str())];
    let small = ask_with(address, "POST", "/api/v1/actions/apply", &headers, Bytes::from_static(b"{}")).await;
    assert_eq!(small.status, StatusCode::OK);
    let unknown = Bytes::from_static(b"{\"force\":true}");
    let unknown = ask_with(address, "POST", "/api/v1/actions/apply", &headers, unknown).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["where"]), (StatusCode::BAD_REQUEST, &"body".into()));
    let large = Bytes::from(vec![b' '; route::BODY_BYTES_MAX + 1]);
    let large = ask_with(address, "POST", "/api/v1/actions/apply", &headers, large).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    rig.stop().await;
}

#[test]
fn the_document_names_every_route_and_no_other() {
    let document: serde_json::Value = serde_json::from_str(document::DOCUMENT).unwrap();
    let mut documented: Vec<(String, String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let role = operation["x-role"].as_str().unwrap_or("none");
            documented.push((path.clone(), method.to_uppercase(), role.to_owned()));
        }
    }
    let mut served: Vec<_> = route::table()
        .iter()
        .map(|route| (route.path.to_owned(), route.method.to_owned(), route.role.as_str().to_owned()))
        .collect();
    documented.sort();
    served.sort();
    assert_eq!(documented, served);
    assert_eq!(document["servers"][0]["url"], route::ROOT);
}
