//! Documents that the agent answers, of a mirror at work and of one at rest.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::env::Place;
use crate::env::feed::FeedFile;
use crate::env::plainfold;

/// The head and the bytes that the agent answers.
fn get(place: &Place, path: &str) -> (String, Vec<u8>) {
    let mut socket = UnixStream::connect(place.join("agent.sock")).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), body)
}

fn json_of(place: &Place, path: &str) -> Value {
    serde_json::from_slice(&get(place, path).1).unwrap()
}

#[test]
fn a_mirror_at_work_and_one_at_rest_answer_their_documents_and_a_large_attachment_takes_no_memory()
{
    const LARGE: usize = 64 << 20;
    let place = Place::new();
    let mut feed = FeedFile::create(place.join("feed.ndjson"));
    let page = b"<script>alert(document.domain)</script>";
    feed.put("../../etc/passwd", json!({ "big": 1 }), &[("x/../page.html", page)]);
    let large = vec![b'z'; 1000];
    feed.put("large", json!({}), &[("video.bin", &large)]);
    let entry = |name: &str, more: &str| {
        let directory = place.join(name).display().to_string();
        let source = feed.source();
        format!(
            "[[mirror]]\nname = '{name}'\nsource = '{source}'\ndirectory = '{directory}'\n{more}\n"
        )
    };
    let config = place.join("plainfold.toml");
    let yearly = "schedule = { cron = '0 0 1 1 *' }";
    let text =
        format!("[api]\nlisten = ['./agent.sock']\n{}{}", entry("work", ""), entry("rest", yearly));
    fs::write(&config, text).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_plainfold"));
    let command = plainfold::command_of(program, ["run", "--config", config.to_str().unwrap()]);
    let mut agent = plainfold::live_command(command);
    while json_of(&place, "/v1/mirrors/rest")["state"] != "waiting"
        || json_of(&place, "/v1/mirrors/work")["caught_up"] != true
    {
        std::thread::yield_now();
    }
    for mirror in ["work", "rest"] {
        let archive = json_of(&place, &format!("/v1/mirrors/{mirror}/archive"));
        let collection = archive["collections"][0]["collection"].as_str().unwrap();
        let all = format!("/v1/mirrors/{mirror}/collections/{collection}/documents");
        let ids = json_of(&place, &all);
        assert_eq!(ids["documents"].as_array().unwrap().len(), 2, "{ids}");
        let hostile = format!("{all}/%2e%2e%2F%2e%2e%2Fetc%2Fpasswd");
        let document = json_of(&place, &hostile);
        let path = place.join(mirror).join(document["path"].as_str().unwrap());
        let (head, body) = get(&place, &format!("{hostile}/body"));
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert_eq!(body, fs::read(path.join("document.json")).unwrap());
        let (head, body) = get(&place, &format!("{hostile}/attachments/x%2F%2e%2e%2Fpage.html"));
        assert_eq!(body, page);
        for line in [
            "content-type: application/octet-stream\r\n",
            "content-disposition: attachment;",
            "x-content-type-options: nosniff\r\n",
            "content-security-policy: default-src 'none'; sandbox\r\n",
        ] {
            assert!(head.contains(line), "{head}");
        }
        // No path of a request leads to a file.
        for path in ["/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fdocument.json"] {
            assert!(get(&place, &format!("{all}{path}")).0.starts_with("http/1.1 404"), "{path}");
        }
    }
    // A file that grew to many times the memory that the agent may take for it.
    let collection = json_of(&place, "/v1/mirrors/rest/archive");
    let collection = collection["collections"][0]["collection"].as_str().unwrap();
    let file = place.join("rest").join(collection).join("large/attachments/video.bin");
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(LARGE as u64).unwrap();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = peak();
    let path = format!("/v1/mirrors/rest/collections/{collection}/documents/large");
    let (head, body) = get(&place, &format!("{path}/attachments/video.bin"));
    assert_eq!(body.len(), LARGE, "{head}");
    assert!(peak() < before + (24 << 10), "{before} KiB became {} KiB", peak());
    agent.terminate();
    agent.wait_for_line(plainfold::Stream::Stderr, |line| line.contains("all mirrors have ended"));
}
