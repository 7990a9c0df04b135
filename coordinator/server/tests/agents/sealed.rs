//! The seal key: whom it is given to, and what a coordinator without it does.

use proto::v1::FetchSealKeyRequest;
use tonic::Code;

use super::{Room, renewal};

#[tokio::test]
async fn the_seal_key_is_given_to_coordinators_and_to_nobody_else() {
    let room = Room::open().await;
    let agent = room.join(&room.ready.join_token).await.expect("joins");
    let coordinator = room.join(&room.coordinators_token()).await.expect("joins");
    let ca = agent.reply.ca_certificate_pem.clone();
    for (caller, code) in [(None, Code::Unauthenticated), (Some(&agent), Code::PermissionDenied)] {
        let mut client = room.client(&ca, caller).await;
        let refused = client.fetch_seal_key(FetchSealKeyRequest {}).await.expect_err("refused");
        assert_eq!(refused.code(), code);
    }
    let mut client = room.client(&ca, Some(&coordinator)).await;
    let given = client.fetch_seal_key(FetchSealKeyRequest {}).await.expect("given").into_inner().key;
    let hex: String = given.expect("there is one").iter().map(|byte| format!("{byte:02x}")).collect();
    let kept = std::fs::read_to_string(room.home.path().join("seal-key")).expect("written");
    assert_eq!(kept.trim(), hex);
    room.close().await;
}

#[tokio::test]
async fn without_the_key_nobody_joins_and_nothing_is_renewed_until_it_is_back() {
    let room = Room::open().await;
    let agent = room.join(&room.ready.join_token).await.expect("joins");
    let home = room.close().await;
    let file = home.path().join("seal-key");
    let key = std::fs::read_to_string(&file).expect("written");
    std::fs::remove_file(&file).expect("removed");
    let room = Room::at(home).await;
    let refused = room.join(&room.ready.join_token).await.err().expect("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("lacks the seal key"), "{refused}");
    let mut client = room.client(&agent.reply.ca_certificate_pem, Some(&agent)).await;
    let refused = client.renew(renewal(&agent.key_pem)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    std::fs::write(&file, key).expect("written");
    let patience = std::time::Duration::from_secs(30);
    let joins = async {
        while room.join(&room.ready.join_token).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, joins).await.expect("the key is taken up");
    client.renew(renewal(&agent.key_pem)).await.expect("renewed");
    room.close().await;
}
