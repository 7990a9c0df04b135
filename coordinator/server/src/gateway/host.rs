//! Which names this API answers to.
//!
//! Owns the check of the `Host` header on every request: without it, a web page could point a name of its own at this machine
//! and read the answers (DNS rebinding). Names of this machine's loopback pass, and so does the bound address. Where the API is
//! bound to all addresses, any address passes: a page whose origin is an address was served from there. Any other name passes
//! only with a key that is good, which no browser sends by itself. Any port is right, because tunnels change it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::access::Access;
use super::error::ApiError;

/// The address the API is bound to, and who may use other names for it.
#[derive(Clone)]
pub(crate) struct Hosts {
    pub(crate) api: SocketAddr,
    pub(crate) access: Access,
}

impl Hosts {
    /// For anybody.
    fn allow(api: SocketAddr, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == api.ip() || api.ip().is_unspecified(),
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // One header only: two could be read differently by a proxy and by us.
    let single = request.headers().get_all(HOST).iter().count() == 1;
    let known = |host| Hosts::allow(hosts.api, host) || hosts.access.knows(request.headers());
    if single && named.is_some_and(known) {
        return next.run(request).await;
    }
    let message = format!(
        "This API does not answer to that host name, but for whoever sends a key that is good. Use {}, or send a key.",
        reached(hosts.api)
    );
    ApiError::refused(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message).into_response()
}

fn reached(api: SocketAddr) -> String {
    if api.ip().is_unspecified() {
        format!("an address of this machine, at port {}", api.port())
    } else {
        format!("http://{api}")
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            // A bare IPv6 address has colons of its own.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        Some(_) | None => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_pass_with_any_port() {
        let api = "127.0.0.1:7440".parse().unwrap();
        for host in [
            "localhost",
            "localhost:1",
            "LOCALHOST:7440",
            "127.0.0.1:7440",
            "127.0.0.9",
            "[::1]:7440",
            "[::1]",
            "api.localhost",
            "localhost.:80",
        ] {
            assert!(Hosts::allow(api, host), "{host}");
        }
    }

    #[test]
    fn every_other_name_is_refused() {
        let api = "127.0.0.1:7440".parse().unwrap();
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "10.0.0.1:7440",
            "notlocalhost",
            "localhost@evil.example",
        ] {
            assert!(!Hosts::allow(api, host), "{host}");
        }
    }

    #[test]
    fn only_addresses_that_can_be_used_are_proposed() {
        assert_eq!(reached("127.0.0.1:7440".parse().unwrap()), "http://127.0.0.1:7440");
        for all in ["0.0.0.0:7440", "[::]:7440"] {
            assert_eq!(reached(all.parse().unwrap()), "an address of this machine, at port 7440");
        }
    }

    #[test]
    fn the_bound_address_passes() {
        let api = "192.0.2.7:7440".parse().unwrap();
        assert!(Hosts::allow(api, "192.0.2.7:7440"));
        assert!(!Hosts::allow(api, "192.0.2.8:7440"));
    }
}
