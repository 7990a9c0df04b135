//! Who gets through a handshake, and who does not. In memory: two rustls ends that hand each other bytes.

#![expect(clippy::expect_used, reason = "a test fails loudly")]

use std::sync::Arc;

use proto::identity::{COORDINATOR_DNS, Identity, Role};
use proto::papers::Papers;
use proto::tls::{Credentials, Mistrust, joining_client, mistrust, vouches};
use proto::token::JoinToken;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn as_ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
}

impl Ca {
    fn new() -> Self {
        Self::called("authority")
    }

    fn called(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = as_ca(name);
        let pem = params.self_signed(&key).expect("a CA").pem();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).expect("an issuer");
        Self { pem, issuer }
    }

    /// The next one, and its key certified by this one.
    fn successor(&self) -> (Self, String) {
        let next = Self::called("authority 1");
        let cross = as_ca("authority 1").signed_by(next.issuer.key(), &self.issuer).expect("certified");
        (next, cross.pem())
    }

    fn credentials(&self, identity: Identity) -> Credentials {
        self.credentials_until(identity, 4096)
    }

    /// Good until the first day of this year.
    fn credentials_until(&self, identity: Identity, year: i32) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![identity.dns_name()]).expect("a DNS name");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("ia5")));
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        Credentials {
            certificate_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
            ca_certificate_pem: self.pem.clone(),
        }
    }

    fn token(&self) -> JoinToken {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        JoinToken { ca_hash: *blake3::hash(&der).as_bytes(), id: "t".to_owned(), secret: vec![0; 24] }
    }
}

const COORDINATOR: Identity = Identity { role: Role::Coordinator, node: 1 };
const AGENT: Identity = Identity { role: Role::Agent, node: 7 };

/// Runs a handshake to its end; the identity the server saw, or why either side refused.
fn shake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<Option<Identity>, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("to memory");
        }
        server.read_tls(&mut bytes.as_slice()).expect("from memory");
        server.process_new_packets()?;
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("to memory");
        }
        client.read_tls(&mut bytes.as_slice()).expect("from memory");
        client.process_new_packets()?;
    }
    let leaf = server.peer_certificates().and_then(<[_]>::first);
    Ok(leaf.map(|leaf| Identity::from_leaf(leaf).expect("an identity")))
}

#[test]
fn two_nodes_of_one_cluster_know_each_other() {
    let ca = Ca::new();
    let client = ca.credentials(AGENT).stream_client().expect("a client");
    let server = ca.credentials(COORDINATOR).stream_server().expect("a server");
    assert_eq!(shake(client, server, COORDINATOR_DNS), Ok(Some(AGENT)));
}

#[test]
fn an_agent_of_another_cluster_is_refused() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let mut stranger = theirs.credentials(AGENT);
    stranger.ca_certificate_pem.clone_from(&ours.pem);
    let server = ours.credentials(COORDINATOR).stream_server().expect("a server");
    assert!(shake(stranger.stream_client().expect("a client"), server, COORDINATOR_DNS).is_err());
}

#[test]
fn an_agent_does_not_talk_to_a_coordinator_of_another_cluster() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let client = ours.credentials(AGENT).stream_client().expect("a client");
    let server = theirs.credentials(COORDINATOR).stream_server().expect("a server");
    assert!(shake(client, server, COORDINATOR_DNS).is_err());
}

#[test]
fn an_agent_cannot_pose_as_a_coordinator() {
    let ca = Ca::new();
    let client = ca.credentials(AGENT).stream_client().expect("a client");
    let server = ca.credentials(AGENT).stream_server().expect("a server");
    assert!(shake(client, server, COORDINATOR_DNS).is_err());
}

#[test]
fn a_client_without_a_certificate_gets_no_token_stream() {
    let ca = Ca::new();
    let mut client = joining_client(&ca.token()).expect("a client");
    client.alpn_protocols = vec![proto::STREAM_ALPN.to_vec()];
    let server = ca.credentials(COORDINATOR).stream_server().expect("a server");
    assert!(shake(client, server, COORDINATOR_DNS).is_err());
}

fn open_server(credentials: &Credentials) -> ServerConfig {
    let chain = credentials.chain_pem();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).expect("PEM");
    let mut config = ServerConfig::builder_with_provider(proto::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[test]
fn a_joiner_recognises_the_cluster_of_its_token() {
    let ca = Ca::new();
    let client = joining_client(&ca.token()).expect("a client");
    assert_eq!(shake(client, open_server(&ca.credentials(COORDINATOR)), COORDINATOR_DNS), Ok(None));
}

#[test]
fn a_joiner_refuses_every_other_cluster() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let client = joining_client(&ours.token()).expect("a client");
    assert!(shake(client, open_server(&theirs.credentials(COORDINATOR)), COORDINATOR_DNS).is_err());
}

#[test]
fn a_stolen_ca_certificate_without_its_key_convinces_no_joiner() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    // The impostor sends the true CA's certificate along with a leaf that another CA signed.
    let mut impostor = theirs.credentials(COORDINATOR);
    impostor.ca_certificate_pem.clone_from(&ours.pem);
    let client = joining_client(&ours.token()).expect("a client");
    assert!(shake(client, open_server(&impostor), COORDINATOR_DNS).is_err());
}

fn papers(credentials: Credentials) -> Papers {
    Papers::new(credentials).expect("papers")
}

/// A handshake of gRPC.
fn control(client: &Papers, server: &Papers) -> Result<Option<Identity>, rustls::Error> {
    let client = client.control_client().expect("a client");
    shake(client, server.control_server().expect("a server"), COORDINATOR_DNS)
}

#[test]
fn papers_that_are_replaced_are_shown_by_configurations_made_before() {
    let ca = Ca::new();
    let (agent, coordinator) = (papers(ca.credentials(AGENT)), papers(ca.credentials(COORDINATOR)));
    let client = agent.stream_client().expect("a client");
    let server = coordinator.stream_server().expect("a server");
    let later = Identity { node: 8, ..AGENT };
    agent.replace(ca.credentials(later)).expect("replaced");
    coordinator.replace(ca.credentials(COORDINATOR)).expect("replaced");
    assert_eq!(shake(client, server, COORDINATOR_DNS), Ok(Some(later)));
}

#[test]
fn papers_that_do_not_fit_together_are_refused_and_the_former_stay() {
    let ca = Ca::new();
    let (agent, coordinator) = (papers(ca.credentials(AGENT)), papers(ca.credentials(COORDINATOR)));
    let torn = Credentials { key_pem: ca.credentials(AGENT).key_pem, ..ca.credentials(AGENT) };
    assert!(agent.replace(torn).is_err());
    assert_eq!(control(&agent, &coordinator), Ok(Some(AGENT)));
}

#[test]
fn a_certificate_that_has_expired_opens_nothing_on_either_side() {
    let ca = Ca::new();
    let (agent, coordinator) = (papers(ca.credentials(AGENT)), papers(ca.credentials(COORDINATOR)));
    let late = papers(ca.credentials_until(AGENT, 2001));
    assert!(control(&late, &coordinator).is_err());
    let late = papers(ca.credentials_until(COORDINATOR, 2001));
    assert!(control(&agent, &late).is_err());
}

#[test]
fn a_coordinator_that_was_revoked_is_refused_by_its_number_whatever_its_certificate_is_worth() {
    let ca = Ca::new();
    let (agent, coordinator) = (papers(ca.credentials(AGENT)), papers(ca.credentials(COORDINATOR)));
    agent.refuse([2].into());
    assert_eq!(control(&agent, &coordinator), Ok(Some(AGENT)));
    agent.refuse([1].into());
    let refused = control(&agent, &coordinator).expect_err("refused").to_string();
    assert!(refused.contains("coordinator 1 was removed"), "{refused}");
    agent.replace(ca.credentials(AGENT)).expect("replaced");
    assert!(control(&agent, &coordinator).is_err(), "new papers forget nobody");
}

#[test]
fn an_agent_cannot_pose_as_a_coordinator_under_its_name() {
    let ca = Ca::new();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![COORDINATOR_DNS.to_owned()]).expect("a DNS name");
    params.subject_alt_names.push(SanType::URI(AGENT.to_string().try_into().expect("ia5")));
    let impostor = Credentials {
        certificate_pem: params.signed_by(&key, &ca.issuer).expect("signed").pem(),
        key_pem: key.serialize_pem(),
        ca_certificate_pem: ca.pem.clone(),
    };
    let refused =
        control(&papers(ca.credentials(AGENT)), &papers(impostor)).expect_err("refused").to_string();
    assert!(refused.contains("no coordinator's"), "{refused}");
}

#[test]
fn who_has_no_certificate_may_come_in_to_ask_for_one_but_one_of_another_ca_may_not() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let coordinator = papers(ours.credentials(COORDINATOR));
    let nobody = proto::tls::anonymous_client(&ours.pem).expect("a client");
    let server = coordinator.control_server().expect("a server");
    assert_eq!(shake(nobody, server, COORDINATOR_DNS), Ok(None));
    let mut stranger = theirs.credentials(AGENT);
    stranger.ca_certificate_pem.clone_from(&ours.pem);
    assert!(control(&papers(stranger), &coordinator).is_err());
}

/// What a member shows and trusts while the former authority is trusted too: the certificate is the new one's.
fn turned(former: &Ca, identity: Identity) -> (Credentials, Ca) {
    let (next, cross) = former.successor();
    let mut shown = next.credentials(identity);
    shown.certificate_pem.push_str(&cross);
    shown.ca_certificate_pem = format!("{}{}", next.pem, former.pem);
    (shown, next)
}

fn streams(client: &Credentials, server: &Credentials) -> Result<Option<Identity>, rustls::Error> {
    let (client, server) = (client.stream_client(), server.stream_server());
    shake(client.expect("a client"), server.expect("a server"), COORDINATOR_DNS)
}

#[test]
fn who_has_turned_and_who_knows_only_the_former_authority_take_one_another() {
    let former = Ca::new();
    let (server, _) = turned(&former, COORDINATOR);
    assert_eq!(streams(&former.credentials(AGENT), &server), Ok(Some(AGENT)));
    let (client, _) = turned(&former, AGENT);
    assert_eq!(streams(&client, &former.credentials(COORDINATOR)), Ok(Some(AGENT)));
}

#[test]
fn from_the_end_on_the_former_authority_is_worth_nothing() {
    let former = Ca::new();
    let (_, next) = turned(&former, COORDINATOR);
    let (client, server) = (next.credentials(AGENT), next.credentials(COORDINATOR));
    assert_eq!(streams(&client, &server), Ok(Some(AGENT)));
    let theirs = streams(&former.credentials(AGENT), &server).expect_err("refused");
    assert_eq!(mistrust(&theirs), Some(Mistrust::Theirs));
    // Whoever holds the former key may know the new authority, and certify it as well.
    let mut stolen = former.credentials(AGENT);
    stolen.certificate_pem.push_str(&former.successor().1);
    stolen.ca_certificate_pem.clone_from(&next.pem);
    assert!(streams(&stolen, &server).is_err());
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
    assert_eq!(mistrust(&std::io::Error::other(alert)), Some(Mistrust::Ours));
}

#[test]
fn a_token_of_before_or_of_after_admits_while_both_are_trusted() {
    let former = Ca::new();
    let (server, next) = turned(&former, COORDINATOR);
    let joins = |token: &JoinToken, server: &Credentials| {
        let client = joining_client(token).expect("a client");
        let server =
            Papers::new(server.clone()).and_then(|papers| papers.control_server()).expect("a server");
        shake(client, server, COORDINATOR_DNS)
    };
    assert_eq!(joins(&former.token(), &server), Ok(None));
    assert_eq!(joins(&next.token(), &server), Ok(None));
    let refused = joins(&former.token(), &next.credentials(COORDINATOR)).expect_err("refused");
    assert!(refused.to_string().contains("mlx-serving token create"), "{refused}");
}

#[test]
fn an_authority_vouches_for_what_it_signed_itself_and_for_nothing_else() {
    let former = Ca::new();
    let (shown, next) = turned(&former, AGENT);
    let leaf =
        |shown: &Credentials| CertificateDer::from_pem_slice(shown.certificate_pem.as_bytes()).expect("PEM");
    assert!(vouches(&next.pem, &leaf(&shown)) && vouches(&shown.ca_certificate_pem, &leaf(&shown)));
    assert!(!vouches(&former.pem, &leaf(&shown)));
    assert!(!vouches(&next.pem, &leaf(&former.credentials(AGENT))));
    // One that has ended meanwhile was signed by it all the same.
    let ended = next.credentials_until(AGENT, 2020);
    assert!(vouches(&next.pem, &leaf(&ended)));
    assert!(!vouches("no certificate", &leaf(&ended)));
}

#[test]
fn papers_tell_when_another_authority_signs_and_not_when_they_are_merely_renewed() {
    let former = Ca::new();
    let papers = Papers::new(former.credentials(AGENT)).expect("papers");
    let mut turns = papers.turns();
    papers.replace(former.credentials(AGENT)).expect("renewed");
    assert!(!turns.has_changed().expect("held"));
    let (shown, next) = turned(&former, AGENT);
    papers.replace(shown.clone()).expect("turned");
    assert!(turns.has_changed().expect("held"));
    assert_eq!(*turns.borrow_and_update(), next.token().ca_hash);
    // That the former one is trusted no more is no reason to connect anew.
    papers.replace(Credentials { ca_certificate_pem: next.pem, ..shown }).expect("ended");
    assert!(!turns.has_changed().expect("held"));
}
