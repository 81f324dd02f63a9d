//! Commands as they are typed, against files and against a master that answers on its socket and over HTTPS.

use std::path::Path;

use clap::Parser;
use shared::check::State::{Critical, Ok as Good, Up};

use super::*;
use crate::api::tests::rig::{Rig, slot};
use crate::api::{Applied, Request};
use crate::config::{Sources, compile};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[test]
fn the_commands_hang_together_and_every_help_says_how_it_ends_or_what_to_type() {
    use clap::CommandFactory as _;
    let mut line = Line::command();
    line.clone().debug_assert();
    for command in line.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn wrong_use_is_two_and_no_master_is_three_with_what_to_do() {
    let data = tempfile::tempdir().unwrap();
    let line = |arguments: &[&str]| Line::try_parse_from([&["perigee-master"], arguments].concat()).unwrap().command;
    let data_path = data.path().to_str().unwrap();
    let look = look(false);
    let status = line(&["status", "--data", data_path]);
    let failure = perform(status, &look, &mut Vec::new()).unwrap_err();
    assert!(matches!(&failure, Failure::NotReached(why) if why.contains("perigee-master serve")), "{failure}");
    assert_eq!(run(line(&["status", "--data", data_path])), NOT_REACHED);
    assert_eq!(run(line(&["token", "revoke", "x", "--data", data_path])), WRONG);
    assert_eq!(run(line(&["check-config", data_path])), WRONG);
    assert_eq!(run(line(&["status", "--url", "http://192.0.2.1:8080"])), WRONG);
}

#[test]
fn a_token_is_made_listed_and_revoked() {
    let data = tempfile::tempdir().unwrap();
    let data_path = data.path().to_str().unwrap();
    let answer = |arguments: &[&str]| {
        let all = [&["perigee-master", "token"], arguments, &["--data", data_path]].concat();
        let mut out = Vec::new();
        assert_eq!(perform(Line::try_parse_from(all).unwrap().command, &look(false), &mut out).unwrap(), GOOD);
        String::from_utf8(out).unwrap()
    };
    assert!(answer(&["list"]).contains("no tokens"));
    let made = answer(&["create", "--role", "admin", "--name", "ann"]);
    let id = made.split('.').nth(1).unwrap();
    let listed = answer(&["list"]);
    assert!(listed.contains(id) && listed.contains("admin") && listed.contains("ann"), "{listed}");
    assert!(!listed.contains(made.trim().rsplit('.').next().unwrap()), "the secret is listed");
    assert!(answer(&["revoke", id]).contains(id));
    assert!(answer(&["list"]).contains("no tokens"));
}

/// What a command answers, and its exit status; failures as their text.
async fn answered(arguments: &[&str], data: &Path) -> (u8, String) {
    let line = [&["perigee-master"], arguments, &["--data", data.to_str().unwrap()]].concat();
    let command = Line::try_parse_from(line).unwrap().command;
    let asked = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        let outcome = perform(command, &Look { width: 80, ..look(false) }, &mut out);
        (outcome, String::from_utf8(out).unwrap())
    });
    match asked.await.unwrap() {
        (Ok(status), text) => (status, text),
        (Err(failure), _) => (failure.status(), failure.to_string()),
    }
}

const OBJECTS: [&str; 3] = ["eu-web", "eu-web!disk /", "eu-web!load"];

#[tokio::test]
async fn the_exit_status_says_whether_all_is_well() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.serve(false).await;
    rig.claim(slot("eu", 1)).await;
    rig.results(&[("eu-web", Up, "up"), ("eu-web!load", Good, "load 1")]).await;
    let (status, text) = answered(&["problems"], data.path()).await;
    assert_eq!((status, text.as_str()), (GOOD, "no problems: 1 service OK, 1 host UP, 1 check without a result yet\n"));
    let (status, text) = answered(&["slots"], data.path()).await;
    assert!(status == NO && text.contains("eu/1  connected") && text.contains("us/1  missing"), "{text}");
    rig.claim(slot("eu", 2)).await;
    rig.claim(slot("us", 1)).await;
    assert_eq!(answered(&["slots"], data.path()).await.0, GOOD);

    rig.results(&[("eu-web!load", Critical, "load 99 \u{1b}[2J")]).await;
    let (status, text) = answered(&["problems"], data.path()).await;
    assert!(status == NO && text.contains("CRITICAL  eu-web  load") && text.contains("1/3 soft"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains('\u{1b}'), "{text}");
    let (status, text) = answered(&["problems", "--filter", "service=\"disk /\""], data.path()).await;
    assert_eq!((status, text.as_str()), (GOOD, "no problems that fit the filter; 1 in all\n"));
    let (status, text) = answered(&["problems", "--filter", "servce=x"], data.path()).await;
    assert!(status == WRONG && text.contains("did you mean `service`?"), "{text}");
    let (status, text) = answered(&["status"], data.path()).await;
    assert!(status == GOOD && text.contains("problems      1") && text.contains("1 CRITICAL"), "{text}");
    let (status, text) = answered(&["gaps", "--json"], data.path()).await;
    assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (GOOD, json!({ "total": 0, "items": [] })));
    rig.stop().await;
}

#[tokio::test]
async fn every_page_of_a_long_list_is_shown() {
    let data = tempfile::tempdir().unwrap();
    let names: Vec<String> =
        (0..2_500).map(|number| format!("eu-web!check {number}")).chain(["eu-web".to_owned()]).collect();
    let mut rig = Rig::open(data.path(), &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    rig.serve(false).await;
    rig.claim(slot("eu", 1)).await;
    for group in names.chunks(500) {
        let results: Vec<_> =
            group.iter().filter(|name| name.contains('!')).map(|name| (name.as_str(), Critical, "x")).collect();
        rig.results(&results).await;
    }
    let (status, text) = answered(&["problems", "--json"], data.path()).await;
    let list: Value = serde_json::from_str(&text).unwrap();
    let mut shown: Vec<&str> = show::items(&list).iter().map(|item| item["service"].as_str().unwrap()).collect();
    shown.sort_unstable();
    shown.dedup();
    assert_eq!((status, shown.len(), &list["total"]), (NO, 2_500, &json!(2_500)));
    rig.stop().await;
}

#[tokio::test]
async fn an_apply_with_mistakes_shows_them_as_check_config_does() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    rig.serve(false).await;
    let written = "hosts:\n  web: { intervall: 1m }\n";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), written).unwrap();
    let mut checked = Vec::new();
    assert_eq!(check_config(directory.path(), false, &mut checked).unwrap(), WRONG);
    let answers = [
        Applied::mistakes(compile(&Sources::from_texts([("a.yaml", written)])).unwrap_err()),
        Applied::Failed("the disk is full".to_owned()),
        Applied::Activated {
            generation: shared::name::Generation(2),
            added: 1,
            changed: 2,
            removed: 3,
            warnings: Vec::new(),
        },
    ];
    let mut told = Vec::new();
    for applied in answers {
        let reply = async {
            let Some(Request::Apply { author, reply }) = rig.requests.recv().await else { panic!("no request") };
            assert!(author.starts_with("local user "), "{author}");
            reply.send(applied).unwrap();
        };
        told.push(tokio::join!(answered(&["apply"], data.path()), reply).0);
    }
    let (status, text) = &told[0];
    let checked = String::from_utf8(checked).unwrap();
    let mistakes: Vec<&str> = text.split("\n\n").filter(|part| part.starts_with("error: ")).collect();
    assert!(mistakes.len() == 2 && mistakes.iter().all(|mistake| checked.contains(mistake)), "{text}\n\n{checked}");
    assert!(*status == WRONG && text.contains("the running generation goes on"), "{text}");
    assert!(told[1].0 == NOT_REACHED && told[1].1.contains("the disk is full"), "{}", told[1].1);
    assert_eq!(told[2], (GOOD, "generation 2 runs: 1 added, 2 changed, 3 removed\n".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn over_the_network_it_takes_https_a_trusted_name_and_a_token() {
    let data = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(data.path(), &OBJECTS).await;
    let path = |name: &str| data.path().join(name);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(path("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path("tls.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(path("other.crt"), other.cert.pem()).unwrap();
    let address = rig.serve_with(false, Some((path("tls.crt"), path("tls.key")))).await;
    let token = token::create(data.path(), Role::Read, "ann").unwrap();
    std::fs::write(path("token"), format!("{}\n", token.token)).unwrap();
    std::fs::write(path("wrong"), "pgt1.00.00\n").unwrap();
    let ask = async |host: &str, ca: &str, token: &str, what: &str| {
        let url = format!("https://{host}:{}", address.port());
        let [ca, token] = [path(ca), path(token)].map(|path| path.to_str().unwrap().to_owned());
        let line = ["perigee-master", what, "--url", &url, "--ca", &ca, "--token-file", &token].map(str::to_owned);
        let asked = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            let outcome = perform(Line::try_parse_from(line).unwrap().command, &look(false), &mut out);
            outcome.map_err(|failure| (failure.status(), failure.to_string()))
        });
        asked.await.unwrap()
    };
    assert_eq!(ask("localhost", "tls.crt", "token", "status").await, Ok(GOOD));
    let stranger = ask("localhost", "other.crt", "token", "status").await.unwrap_err();
    assert!(stranger.0 == NOT_REACHED && stranger.1.contains("certificate"), "{stranger:?}");
    let misnamed = ask("127.0.0.1", "tls.crt", "token", "status").await.unwrap_err();
    assert!(misnamed.0 == NOT_REACHED && misnamed.1.contains("certificate"), "{misnamed:?}");
    let unknown = ask("localhost", "tls.crt", "wrong", "status").await.unwrap_err();
    assert!(unknown.0 == WRONG && unknown.1.contains("not known or was revoked"), "{unknown:?}");
    let weak = ask("localhost", "tls.crt", "token", "apply").await.unwrap_err();
    assert!(weak.0 == WRONG && weak.1.contains("needs admin"), "{weak:?}");
    rig.stop().await;
}
