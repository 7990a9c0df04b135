//! What somebody without a certificate may ask of a coordinator: to become a member, and to become one again.
//!
//! Owns the check before a word of the request is read: which calls, how many at once, and how long they may be. Refuses everything
//! else, and trusts nobody for having passed: members are checked again by each call.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::Limited;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::entrance::Caller;
use crate::limits;

/// As gRPC names them.
const OPEN: [&str; 2] = ["/mlx.cluster.v1.Cluster/Join", "/mlx.cluster.v1.Cluster/Renew"];

pub(crate) const NO_CERTIFICATE: &str = "the certificate of a node is needed: join first";

/// A service behind the threshold.
#[derive(Clone)]
pub(crate) struct Threshold<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S> Threshold<S> {
    pub(crate) fn before(inner: S) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(limits::STRANGERS_CALLS)) }
    }
}

impl<S: NamedService> NamedService for Threshold<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Threshold<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        if caller.is_some_and(|caller| caller.identity.is_some()) {
            return Box::pin(self.inner.call(request));
        }
        if !OPEN.contains(&request.uri().path()) {
            let refused = Status::unauthenticated(NO_CERTIFICATE).into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        }
        // The one that was asked whether it is ready, rather than its copy.
        let copy = self.inner.clone();
        let (mut inner, places) = (std::mem::replace(&mut self.inner, copy), Arc::clone(&self.places));
        Box::pin(async move {
            // It is never closed.
            let _place = places.acquire_owned().await;
            inner.call(request.map(|body| Body::new(Limited::new(body, limits::STRANGERS_CALL_BYTES)))).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use proto::identity::{Identity, Role};
    use tonic::Code;

    use super::*;

    /// Reads what it is asked, if it ever is, and counts the bytes that it read to the end.
    #[derive(Clone, Default)]
    struct Inner(Arc<AtomicUsize>);

    impl Service<http::Request<Body>> for Inner {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<http::Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let read = self.0.clone();
            Box::pin(async move {
                if let Ok(body) = request.into_body().collect().await {
                    read.fetch_add(body.to_bytes().len(), Ordering::Relaxed);
                }
                Ok(http::Response::new(Body::empty()))
            })
        }
    }

    fn asking(path: &str, role: Option<Role>, bytes: usize) -> http::Request<Body> {
        let identity = role.map(|role| Identity { role, node: 1 });
        let body = Body::new(Full::new(Bytes::from(vec![0; bytes])));
        let request = http::Request::builder().uri(format!("https://coordinator{path}"));
        request.extension(Caller { identity, leaf: None }).body(body).expect("a request")
    }

    /// What a call is told, and how much of it was read.
    async fn told(request: http::Request<Body>) -> (Option<Code>, usize) {
        let inner = Inner::default();
        let response = Threshold::before(inner.clone()).call(request).await.expect("infallible");
        let code = Status::from_header_map(response.headers()).map(|status| status.code());
        (code, inner.0.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_stranger_may_join_and_renew_in_few_words_and_is_not_heard_out_otherwise() {
        let most = limits::STRANGERS_CALL_BYTES;
        for path in OPEN {
            assert_eq!(told(asking(path, None, most)).await, (None, most));
            assert_eq!(told(asking(path, None, most + 1)).await, (None, 0), "too long");
        }
        for path in ["/mlx.cluster.v1.Cluster/Look", "/mlx.raft.v1.Replica/Append", "/"] {
            assert_eq!(told(asking(path, None, 1)).await, (Some(Code::Unauthenticated), 0));
        }
    }

    #[tokio::test]
    async fn a_member_is_heard_whatever_it_asks() {
        let long = limits::STRANGERS_CALL_BYTES + 1;
        for role in [Role::Agent, Role::Coordinator] {
            for path in [OPEN[0], "/mlx.cluster.v1.Cluster/Look"] {
                assert_eq!(told(asking(path, Some(role), long)).await, (None, long));
            }
        }
    }

    #[tokio::test]
    async fn strangers_wait_for_one_another_and_no_member_waits_for_them() {
        let mut threshold = Threshold::before(Inner::default());
        let places = Arc::clone(&threshold.places);
        let all = places.acquire_many_owned(limits::STRANGERS_CALLS as u32).await.expect("open");
        let mut stranger = threshold.call(asking(OPEN[0], None, 1));
        assert!(futures_util::poll!(&mut stranger).is_pending());
        threshold.call(asking(OPEN[0], Some(Role::Agent), 1)).await.expect("infallible");
        drop(all);
        stranger.await.expect("infallible");
    }
}
