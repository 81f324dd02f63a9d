//! Asks Docker, or whoever speaks like it, about containers over its Unix socket: one connection, one GET each, bounded. Judges
//! nothing, changes nothing.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Told;

/// How long one container may take; Docker answers in some hundredths of a second, or hangs.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of one answer; a container with thousand mounts has some hundred thousand.
const ANSWER_MAX: usize = 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: StateOf,
    #[serde(default)]
    restart_count: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateOf {
    status: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default, rename = "OOMKilled")]
    out_of_memory: bool,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: String,
}

/// Asks for each of the names in turn. When the socket does not answer, the rest is not tried.
pub async fn ask(socket: &str, names: &[String]) -> Vec<(String, Told)> {
    let mut told: Vec<(String, Told)> = Vec::new();
    let mut dead: Option<String> = None;
    for name in names {
        let one = match &dead {
            Some(why) => Told::Failed(why.clone()),
            None => match timeout(PATIENCE, inspect(socket, name)).await {
                Ok(Ok(told)) => told,
                Ok(Err(why)) => {
                    dead = Some(why.clone());
                    Told::Failed(why)
                }
                Err(_) => {
                    let why = format!("{socket} has not answered within {} s", PATIENCE.as_secs());
                    dead = Some(why.clone());
                    Told::Failed(why)
                }
            },
        };
        told.push((name.clone(), one));
    }
    told
}

/// `Err`: there is nobody to be asked.
async fn inspect(socket: &str, name: &str) -> Result<Told, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no {socket}: does Docker run here, is its socket mounted?"),
        io::ErrorKind::PermissionDenied => format!("{socket}: permission denied for this user"),
        _ => format!("{socket}: {error}"),
    })?;
    let odd = |error: hyper::Error| format!("{socket} does not speak HTTP as Docker does: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(odd)?;
    // Both halves together: when this future is dropped, so is the connection.
    let exchange = async move {
        let request =
            Request::get(format!("/containers/{name}/json")).header("Host", "docker").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| format!("no request can be made for {name}: {error}"))?;
        let response = sender.send_request(request).await.map_err(odd)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
        Ok::<_, String>((status, body))
    };
    let (status, body) = tokio::select! {
        answered = exchange => answered?,
        Err(error) = connection => return Err(odd(error)),
    };
    Ok(match status {
        StatusCode::OK => read(&body),
        StatusCode::NOT_FOUND => Told::Missing,
        status => Told::Failed(format!("Docker answers {status}")),
    })
}

fn read(body: &[u8]) -> Told {
    match serde_json::from_slice::<Inspected>(body) {
        Ok(Inspected { state, restart_count }) => Told::Inspected {
            status: state.status,
            health: state.health.map(|health| health.status),
            exit_code: state.exit_code,
            out_of_memory: state.out_of_memory,
            restarts: restart_count,
        },
        Err(error) => Told::Failed(format!("Docker's answer is not understood: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    const RUNNING: &str = r#"{"Id":"abc","RestartCount":2,"State":{"Status":"running","Running":true,"OOMKilled":false,
        "ExitCode":0,"Health":{"Status":"healthy","Log":[]}},"Config":{}}"#;

    /// A Docker that gives the answers in turn, and what was asked of it.
    async fn docker(path: std::path::PathBuf, answers: Vec<Vec<u8>>) -> Vec<String> {
        let listener = UnixListener::bind(path).unwrap();
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned());
            // Who asked may have gone when it has read enough.
            let _ = stream.write_all(&answer).await;
        }
        asked
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    }

    #[tokio::test]
    async fn each_container_is_asked_for_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let exited = r#"{"State":{"Status":"exited","ExitCode":137,"OOMKilled":true}}"#;
        let answers = vec![
            http("200 OK", RUNNING),
            http("200 OK", exited),
            http("404 Not Found", "{}"),
            http("500 Internal Server Error", "{}"),
            http("200 OK", "[]"),
            http("200 OK", &"x".repeat(ANSWER_MAX + 1)),
        ];
        let names: Vec<String> = ["web", "db", "gone", "ill", "odd", "long"].map(str::to_owned).to_vec();
        let serving = tokio::spawn(docker(path.clone(), answers));
        // The listener stands before the first await of the task ends; until then there is no such file.
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        let told = ask(path.to_str().unwrap(), &names).await;
        let asked = serving.await.unwrap();
        assert_eq!(asked[0], "GET /containers/web/json HTTP/1.1");
        let running = Told::Inspected {
            status: "running".to_owned(),
            health: Some("healthy".to_owned()),
            exit_code: 0,
            out_of_memory: false,
            restarts: 2,
        };
        assert_eq!(told[0].1, running);
        assert!(
            matches!(&told[1].1, Told::Inspected { status, health: None, exit_code: 137, out_of_memory: true, restarts: 0 } if status == "exited")
        );
        assert_eq!(told[2].1, Told::Missing);
        let failed = |at: usize| match &told[at].1 {
            Told::Failed(why) => why.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(failed(3), "Docker answers 500 Internal Server Error");
        assert!(failed(4).contains("is not understood"), "{}", failed(4));
        assert!(failed(5).contains("cannot be read"), "{}", failed(5));
    }

    #[tokio::test]
    async fn nobody_there_is_said_once_for_all() {
        let names = ["a".to_owned(), "b".to_owned()];
        let told = ask("/no/such/docker.sock", &names).await;
        let why = "there is no /no/such/docker.sock: does Docker run here, is its socket mounted?";
        assert_eq!(told, names.map(|name| (name, Told::Failed(why.to_owned()))));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let serving = tokio::spawn(docker(path.clone(), vec![b"SSH-2.0-x\r\n".to_vec()]));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        let told = ask(path.to_str().unwrap(), &["a".to_owned()]).await;
        serving.await.unwrap();
        assert!(matches!(&told[0].1, Told::Failed(why) if why.contains("does not speak HTTP")), "{told:?}");
    }
}
