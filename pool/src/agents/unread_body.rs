//! What a client goes on sending of a body that its answer did not need: one that is refused for its length, its key or its
//! path. A connection that is closed while bytes lie unread is reset (RFC 9112, section 9.6), and a client that is still writing hears
//! of the reset in place of the answer. So what is left is read and forgotten, within bounds, before the answer goes out.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{Version, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// So much is read of a body that nobody needs: more than the largest that clients send by mistake, a picture or a file.
const BYTES_MAX: usize = 32 << 20;
/// And for so long.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Has an answer wait until its request has come.
pub(super) async fn answer_after_body(request: Request, next: Next) -> Response {
    // A stream of HTTP/2 ends without its connection. Whoever asks first whether to send a body does not send it when refused.
    if request.version() > Version::HTTP_11 || request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let (unread, mut left) = oneshot::channel();
    let watched = request.map(|body| {
        Body::new(Watched {
            body,
            unread: Some(unread),
        })
    });
    let response = next.run(watched).await;
    if let Ok(body) = left.try_recv() {
        // Whoever has not sent it by then loses its connection.
        let _ = timeout(TIME_MAX, forget(body, BYTES_MAX)).await;
    }
    response
}

/// Reads a body to its end, or until so many bytes have come.
async fn forget(mut body: Body, bytes_max: usize) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= bytes_max {
            return;
        }
    }
}

/// A body that is handed on when it is dropped before its end.
struct Watched {
    body: Body,
    unread: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.unread = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(unread), false) = (self.unread.take(), self.body.is_end_stream()) {
            // Nobody takes it where the connection has ended.
            let _ = unread.send(std::mem::take(&mut self.body));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_body_without_an_end_is_read_up_to_a_bound() {
        let given = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&given);
        let pieces = std::iter::repeat_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(vec![b' '; 1_024])
        });
        let endless = Body::from_stream(futures::stream::iter(pieces));
        forget(endless, 64 * 1_024).await;
        assert_eq!(given.load(Ordering::Relaxed), 64);
    }

    #[tokio::test]
    async fn what_was_read_to_its_end_is_not_handed_on_and_the_rest_of_a_body_is() {
        for (frames, is_left) in [(0, true), (1, true), (3, false)] {
            let pieces = [b"one", b"two"].map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
            let body = Body::from_stream(futures::stream::iter(pieces));
            let (unread, mut left) = oneshot::channel();
            let mut watched = Watched {
                body,
                unread: Some(unread),
            };
            for _ in 0..frames {
                watched.frame().await;
            }
            drop(watched);
            assert_eq!(left.try_recv().is_ok(), is_left, "after {frames}");
        }
    }
}
