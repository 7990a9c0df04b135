//! Which names this API answers to.
//!
//! Owns the check of the `Host` header on every request, whatever address the listener has: without it, a web page could point
//! a name of its own at this machine and read the answers (DNS rebinding). Any port is right, because tunnels change it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;

/// The address the API is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hosts {
    pub(crate) api: SocketAddr,
}

impl Hosts {
    fn allow(self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == self.api.ip(),
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // One header only: two could be read differently by a proxy and by us.
    let single = request.headers().get_all(HOST).iter().count() == 1;
    if single && named.is_some_and(|host| hosts.allow(host)) {
        return next.run(request).await;
    }
    let message = format!("This API does not answer to that host name. Use http://{}.", hosts.api);
    ApiError::refused(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message).into_response()
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
        let hosts = Hosts { api: "127.0.0.1:7440".parse().unwrap() };
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
            assert!(hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn every_other_name_is_refused() {
        let hosts = Hosts { api: "127.0.0.1:7440".parse().unwrap() };
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
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn the_bound_address_passes() {
        let hosts = Hosts { api: "192.0.2.7:7440".parse().unwrap() };
        assert!(hosts.allow("192.0.2.7:7440"));
        assert!(!hosts.allow("192.0.2.8:7440"));
    }
}
