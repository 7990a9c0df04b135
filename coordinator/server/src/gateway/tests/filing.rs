//! `/v1/files`: what is uploaded comes back, to its owner alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use futures_util::StreamExt as _;
use registry::{BatchChange, BatchEndpoint, BatchId, Command, JobRun, Life, limits as facts};
use serde_json::json;
use tower::ServiceExt as _;

use super::stage::{Reply, Stage, request};
use crate::clock::unix_ms;
use crate::gateway::limits;

const BOUNDARY: &str = "----a-boundary";

/// A form with these fields; one with a file name is the file.
pub(super) fn form(fields: &[(&str, Option<&str>, &str)]) -> String {
    let part = |(name, file, text): &(&str, Option<&str>, &str)| {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{text}\r\n")
    };
    format!("{}--{BOUNDARY}--\r\n", fields.iter().map(part).collect::<String>())
}

impl Stage {
    pub(super) async fn send_form(&self, bearer: &str, form: String) -> Reply {
        let of = format!("multipart/form-data; boundary={BOUNDARY}");
        let asked = request("POST", "/v1/files").header("content-type", of);
        let asked = asked.header("authorization", format!("Bearer {bearer}"));
        self.send(asked.body(Body::from(form)).unwrap()).await
    }

    /// The id of a file that was taken.
    pub(super) async fn upload(&self, bearer: &str, text: &str) -> String {
        let form = form(&[("purpose", None, "batch"), ("file", Some("in.jsonl"), text)]);
        let made = self.send_form(bearer, form).await;
        assert_eq!(made.status.as_u16(), 200, "{}", made.text);
        made.json()["id"].as_str().expect("an id").to_owned()
    }
}

#[tokio::test]
async fn a_file_comes_back_as_it_was_at_any_gateway_until_it_is_deleted() {
    let stage = Stage::saying("x");
    let other = stage.beside(2, |_, _| Vec::new());
    let text = "{\"a\": 1}\r\n\r\n--- not the boundary\n{\"b\": \"é\"}";
    // The fields may come in any order.
    let fields = [("file", Some("in put.jsonl"), text), ("purpose", None, "batch")];
    let made = stage.send_form("a", form(&fields)).await;
    assert_eq!(made.status.as_u16(), 200, "{}", made.text);
    let made = made.json();
    let (id, created) = (made["id"].as_str().expect("an id"), made["created_at"].as_u64().expect("a time"));
    let expected = json!({
        "id": id, "object": "file", "bytes": text.len(), "created_at": created, "filename": "in put.jsonl",
        "expires_at": created + 30 * 24 * 3_600, "purpose": "batch", "status": "processed", "status_details": null,
    });
    assert_eq!(made, expected);
    for gateway in [&stage, &other] {
        assert_eq!(gateway.with_key("GET", &format!("/v1/files/{id}"), "a", None).await.json(), expected);
        let content = gateway.with_key("GET", &format!("/v1/files/{id}/content"), "a", None).await;
        assert_eq!((content.text.as_str(), content.broke), (text, false));
        assert_eq!(content.header("content-length"), Some(text.len().to_string().as_str()));
    }
    let gone = other.with_key("DELETE", &format!("/v1/files/{id}"), "a", None).await;
    assert_eq!(gone.json(), json!({"id": id, "object": "file", "deleted": true}));
    for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
        let missing = stage.with_key("GET", &path, "a", None).await;
        assert_eq!((missing.status.as_u16(), missing.error_code().as_str()), (404, "not_found"));
    }
}

#[tokio::test]
async fn as_many_are_read_at_once_as_may_be_slow() {
    let stage = Stage::saying("x");
    let tenants = limits::DOWNLOADS_AT_ONCE / limits::DOWNLOADS_AT_ONCE_PER_TENANT;
    let mut files = Vec::new();
    for tenant in 0..=tenants {
        let bearer = format!("tenant-{tenant}");
        files.push((format!("/v1/files/{}/content", stage.upload(&bearer, "{}").await), bearer));
    }
    let read = async |(path, bearer): &(String, String)| {
        let asked = request("GET", path).header("authorization", format!("Bearer {bearer}"));
        stage.router.clone().oneshot(asked.body(Body::empty()).unwrap()).await.unwrap()
    };
    let mut unread = Vec::new();
    for file in &files[..tenants] {
        for _ in 0..limits::DOWNLOADS_AT_ONCE_PER_TENANT {
            unread.push(read(file).await);
            assert_eq!(unread.last().expect("one").status().as_u16(), 200, "another one has taken all");
        }
        let refused = read(file).await;
        assert_eq!(refused.status().as_u16(), 429);
        assert!(refused.headers().contains_key("retry-after"));
    }
    assert_eq!(read(&files[tenants]).await.status().as_u16(), 429, "there are no more");
    unread.pop();
    assert_eq!(read(&files[tenants]).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_file_of_somebody_else_is_none() {
    let stage = Stage::saying("x");
    let id = stage.upload("a", "{}").await;
    for (method, path) in [("GET", ""), ("GET", "/content"), ("DELETE", "")] {
        let path = format!("/v1/files/{id}{path}");
        let told = stage.with_key(method, &path, "b", None).await;
        let none = stage.with_key(method, &path.replace(&id, "file-0"), "b", None).await;
        assert_eq!(told.status.as_u16(), 404);
        assert_eq!(told.text.replace(&id, "file-0"), none.text, "nobody can tell the two apart");
    }
    assert_eq!(stage.with_key("GET", "/v1/files", "b", None).await.json()["data"], json!([]));
    assert_eq!(stage.with_key("GET", &format!("/v1/files/{id}"), "a", None).await.status.as_u16(), 200);
}

#[tokio::test]
async fn files_are_listed_page_by_page_the_newest_first() {
    let stage = Stage::saying("x");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(stage.upload("a", "{}").await);
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    ids.reverse();
    let list = async |query: &str| stage.with_key("GET", &format!("/v1/files{query}"), "a", None).await;
    let told = |reply: &Reply| {
        let page = reply.json();
        let ids: Vec<_> =
            page["data"].as_array().expect("a list").iter().map(|file| file["id"].clone()).collect();
        (ids, page["has_more"] == true)
    };
    assert_eq!(told(&list("").await), (ids.iter().map(|id| json!(id)).collect(), false));
    assert_eq!(told(&list("?limit=2&purpose=batch").await), (vec![json!(ids[0]), json!(ids[1])], true));
    assert_eq!(told(&list(&format!("?after={}", ids[1])).await), (vec![json!(ids[2])], false));
    assert_eq!(told(&list("?order=asc&limit=1").await), (vec![json!(ids[2])], true));
    assert_eq!(told(&list("?purpose=batch_output").await), (vec![], false));
    for bad in ["?limit=0", "?limit=x", "?order=up", "?after=file-0", "?unknown=1"] {
        assert_eq!(list(bad).await.status.as_u16(), 400, "{bad}");
    }
}

#[tokio::test]
async fn what_is_no_file_for_a_batch_is_refused_with_words() {
    let stage = Stage::saying("x");
    let file = ("file", Some("in.jsonl"), "{}");
    let batch = ("purpose", None, "batch");
    let (anchor, day) =
        (("expires_after[anchor]", None, "created_at"), ("expires_after[seconds]", None, "86400"));
    let second = ("expires_after[seconds]", None, "1");
    let long = "x".repeat(limits::FORM_FIELD_BYTES_MAX + 1);
    for (fields, code) in [
        (vec![file], "missing_required_parameter"),
        (vec![batch], "invalid_request"),
        (vec![("purpose", None, "fine-tune"), file], "invalid_value"),
        (vec![batch, batch, file], "invalid_value"),
        (vec![batch, file, file], "invalid_request"),
        (vec![batch, ("file", Some("in.jsonl"), "")], "invalid_request"),
        (vec![batch, ("colour", None, "red"), file], "unsupported_parameter"),
        (vec![("purpose", None, long.as_str()), file], "invalid_request"),
        (vec![batch, anchor, file], "invalid_value"),
        (vec![batch, anchor, second, file], "invalid_value"),
        (vec![batch, ("file", Some("a\tb"), "{}")], "invalid_request"),
    ] {
        let refused = stage.send_form("a", form(&fields)).await;
        assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (400, code), "{fields:?}");
    }
    let cut = form(&[batch, file]).replace("----a-boundary--", "");
    assert_eq!(stage.send_form("a", cut).await.status.as_u16(), 400);
    assert_eq!(stage.post("/v1/files", &json!({"purpose": "batch"})).await.error_code(), "invalid_request");
    assert_eq!(stage.facts.now().files().count(), 0);
    let made = stage.send_form("a", form(&[batch, anchor, day, file])).await.json();
    assert_eq!(made["expires_at"].as_u64(), made["created_at"].as_u64().map(|at| at + 86_400));
}

#[tokio::test]
async fn a_name_that_is_none_never_gets_into_the_log() {
    let stage = Stage::saying("x");
    for name in ["a\tb", &"x".repeat(facts::FILE_NAME_BYTES_MAX + 1), &"x".repeat(40_000)] {
        let refused =
            stage.send_form("a", form(&[("purpose", None, "batch"), ("file", Some(name), "{}")])).await;
        assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (400, "invalid_request"));
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    assert_eq!((stage.facts.proposed(), stage.drawer.count()), (0, 0));
}

/// A body that tells how many of its pieces were taken.
fn counted(text: String) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let pieces: Vec<_> = text.into_bytes().chunks(1_024).map(bytes::Bytes::copy_from_slice).collect();
    let counting = taken.clone();
    let pieces = futures_util::stream::iter(pieces).map(move |piece| {
        counting.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(piece)
    });
    (Body::from_stream(pieces), taken)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_refused_unread_is_taken_in_so_that_its_sender_hears_why() {
    let stage = Stage::saying("x");
    let text = form(&[("purpose", None, "batch"), ("file", Some("f"), &"x".repeat(64 << 10))]);
    let send = async |of: &str| {
        let (body, taken) = counted(text.clone());
        let asked = request("POST", "/v1/files").header("authorization", "Bearer a");
        let reply = stage.send(asked.header("content-type", of).body(body).unwrap()).await;
        (reply.status.as_u16(), taken.load(Ordering::Relaxed))
    };
    let all = text.len().div_ceil(1_024);
    assert_eq!(send("application/json").await, (400, all));
    let of = format!("multipart/form-data; boundary={BOUNDARY}");
    let uploads: Vec<_> = (0..limits::UPLOADS_AT_ONCE)
        .map(|_| {
            let never =
                Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::fmt::Error>>());
            let asked = request("POST", "/v1/files").header("content-type", &of);
            let asked = asked.header("authorization", "Bearer a").body(never).unwrap();
            tokio::spawn(stage.router.clone().oneshot(asked))
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(send(&of).await, (429, all));
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_file_in_several_pieces_is_one_and_one_that_is_too_large_is_refused() {
    let stage = Stage::saying("x");
    let line = "0123456789abcdef".repeat(64);
    let text = line.repeat(5 << 10);
    let id = stage.upload("a", &text).await;
    assert_eq!(stage.facts.now().files().next().expect("a file").1.pieces.len(), 2);
    let content = stage.with_key("GET", &format!("/v1/files/{id}/content"), "a", None).await;
    assert!(content.text == text, "{} bytes", content.text.len());
    let huge = "x".repeat(limits::UPLOAD_BYTES_MAX + 1);
    let refused = stage.send_form("a", form(&[("purpose", None, "batch"), ("file", Some("f"), &huge)])).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (413, "request_too_large"));
}

#[tokio::test]
async fn without_room_on_a_disk_no_file_is_taken() {
    let stage = Stage::saying("x");
    stage.drawer.full.store(true, Ordering::Relaxed);
    let form = form(&[("purpose", None, "batch"), ("file", Some("f"), "{}")]);
    let full = stage.send_form("a", form.clone()).await;
    assert_eq!((full.status.as_u16(), full.error_code().as_str()), (507, "storage_full"));
    stage.drawer.full.store(false, Ordering::Relaxed);
    stage.facts.fail_with(vec![consensus::ProposeError::StorageFull { free: 0 }]);
    let full = stage.send_form("a", form).await;
    assert_eq!((full.status.as_u16(), full.error_code().as_str()), (507, "storage_full"));
}

#[tokio::test]
async fn a_file_whose_bytes_are_lost_says_so_and_one_that_is_lost_midway_breaks_off() {
    let stage = Stage::saying("x");
    let id = stage.upload("a", "{}").await;
    stage.drawer.unreachable.store(true, Ordering::Relaxed);
    stage.drawer.lose_all();
    let path = format!("/v1/files/{id}/content");
    assert_eq!(stage.with_key("GET", &path, "a", None).await.error_code(), "file_unreachable");
    stage.drawer.unreachable.store(false, Ordering::Relaxed);
    let gone = stage.with_key("GET", &path, "a", None).await;
    assert_eq!((gone.status.as_u16(), gone.error_code().as_str()), (410, "file_gone"));
    let large = stage.upload("a", &"x".repeat(5 << 20)).await;
    let pieces = stage.facts.now().files().find(|(file, _)| file.0 == large).expect("there").1.pieces.clone();
    stage.drawer.lose(pieces[1].digest);
    let cut = stage.with_key("GET", &format!("/v1/files/{large}/content"), "a", None).await;
    assert!(cut.broke && cut.text.len() == usize::try_from(pieces[0].bytes).unwrap());
}

#[tokio::test]
async fn a_file_that_a_batch_reads_stays_and_one_whose_time_is_over_is_none() {
    let stage = Stage::saying("x");
    let id = stage.upload("a", "{}").await;
    let (file, stored) =
        stage.facts.now().files().next().map(|(id, file)| (id.clone(), file.clone())).expect("one");
    stage.facts.apply(&Command::ChangeBatch {
        batch: BatchId("b".to_owned()),
        change: BatchChange::Begin {
            tenant: stored.tenant,
            key: None,
            input: file,
            endpoint: BatchEndpoint::Chat,
            metadata: std::collections::BTreeMap::new(),
            run: JobRun { replica: 9, life: Life(1), number: 1 },
            at_unix_ms: unix_ms(),
        },
    });
    let used = stage.with_key("DELETE", &format!("/v1/files/{id}"), "a", None).await;
    assert_eq!((used.status.as_u16(), used.error_code().as_str()), (409, "file_in_use"));
    let free = stage.upload("a", "{}").await;
    stage.facts.apply(&Command::ForgetFiles { at_unix_ms: unix_ms() + facts::FILE_KEPT_MS + 1 });
    let there =
        async |id: &str| stage.with_key("GET", &format!("/v1/files/{id}"), "a", None).await.status.as_u16();
    assert_eq!([there(&id).await, there(&free).await], [200, 404]);
}

#[tokio::test]
async fn as_long_as_a_coordinator_does_not_know_files_none_is_taken() {
    let stage = Stage::saying("x");
    stage.facts.set_back();
    let form = form(&[("purpose", None, "batch"), ("file", Some("f"), "{}")]);
    let early = stage.send_form("a", form).await;
    assert_eq!((early.status.as_u16(), early.error_code().as_str()), (503, "cluster_updating"));
    assert!(early.header("retry-after").is_some());
}

#[tokio::test]
async fn nothing_that_is_in_a_file_is_among_the_facts() {
    let stage = Stage::saying("x");
    stage.upload("a", "{\"prompt\": \"canary-prompt\"}").await;
    let facts = serde_json::to_string(stage.facts.now().as_ref()).expect("JSON");
    assert!(facts.contains("\"files\"") && !facts.contains("canary"), "{facts}");
    assert!(!format!("{:?}", stage.facts.now()).contains("in.jsonl"), "its name is the client's word");
}
