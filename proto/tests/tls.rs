//! Who gets through a handshake, and who does not. In memory: two rustls ends that hand each other bytes.

#![expect(clippy::expect_used, reason = "a test fails loudly")]

use std::sync::Arc;

use proto::identity::{COORDINATOR_DNS, Identity, Role};
use proto::papers::Papers;
use proto::tls::{Credentials, joining_client};
use proto::token::JoinToken;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("a CA").pem();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).expect("an issuer");
        Self { pem, issuer }
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
