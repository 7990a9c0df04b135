//! With which key the command line calls the API.
//!
//! Owns the choice: the one that was given, else that of the coordinator whose folder is on this machine. Refuses to send the
//! latter to any other machine.

use std::net::{ToSocketAddrs as _, UdpSocket};

use anyhow::Context as _;

use crate::cli;
use crate::home::{self, Rooms};

/// The key for calls to this URL, if there is one.
pub(crate) fn key(options: &cli::Api) -> anyhow::Result<Option<String>> {
    if let Some(key) = &options.key {
        return Ok(Some(key.trim().to_owned()));
    }
    if is_here(&options.url) { local(&home::rooms(&options.home)?) } else { Ok(None) }
}

/// The key of the coordinator that runs in this folder.
pub(crate) fn local(rooms: &Rooms) -> anyhow::Result<Option<String>> {
    let file = rooms.coordinator.join(server::ADMIN_KEY_FILE);
    match std::fs::read_to_string(&file) {
        Ok(key) => Ok(Some(key.trim().to_owned())),
        // Who may not read it may still ask and look, as anybody may.
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
}

/// Whether every address of the URL is one of this machine: only such a one can be bound.
fn is_here(url: &str) -> bool {
    let Some(host) = host(url) else { return false };
    let Ok(addresses) = (host, 0).to_socket_addrs() else { return false };
    let mut addresses = addresses.peekable();
    addresses.peek().is_some() && addresses.all(|address| UdpSocket::bind(address).is_ok())
}

fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // Whatever is before an `@` is no host.
    let authority = authority.rsplit('@').next()?;
    match authority.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => authority.split(':').next(),
    }
    .filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_is_between_the_scheme_and_the_port() {
        for (url, expected) in [
            ("http://127.0.0.1:7440", Some("127.0.0.1")),
            ("https://mini-07.local/v1", Some("mini-07.local")),
            ("http://[::1]:7440/", Some("::1")),
            ("http://127.0.0.1@evil.example:7440", Some("evil.example")),
            ("127.0.0.1:7440", None),
            ("http://", None),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn the_key_of_this_machine_stays_on_it() {
        assert!(is_here("http://127.0.0.1:7440"));
        for url in
            ["http://192.0.2.1:7440", "http://nobody.invalid", "http://127.0.0.1@192.0.2.1:7440", "nonsense"]
        {
            assert!(!is_here(url), "{url}");
        }
    }

    #[test]
    fn the_given_key_comes_first_and_a_missing_file_is_no_error() {
        let folder = tempfile::tempdir().expect("scratch");
        let home = cli::Home { home: Some(folder.path().to_owned()) };
        let mut options = cli::Api { url: "http://127.0.0.1:7440".to_owned(), key: None, home };
        assert_eq!(key(&options).expect("none"), None);
        std::fs::create_dir(folder.path().join("coordinator")).expect("made");
        let file = folder.path().join("coordinator").join(server::ADMIN_KEY_FILE);
        std::fs::write(file, "mlx_local_1\n").expect("written");
        assert_eq!(key(&options).expect("read").as_deref(), Some("mlx_local_1"));
        options.url = "http://192.0.2.1:7440".to_owned();
        assert_eq!(key(&options).expect("none"), None);
        options.key = Some("mlx_0a_1".to_owned());
        assert_eq!(key(&options).expect("given").as_deref(), Some("mlx_0a_1"));
    }
}
