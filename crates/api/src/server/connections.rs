use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{App, ServerSettings};

/// How long to wait after a failed accept: the usual cause is that the process has no file
/// descriptor left, and a connection has to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// hyper's own bound on a connection's buffer, well above the one on headers, so that ours answers.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 client is asked whether it is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);

type Builder = auto::Builder<TokioExecutor>;

/// Accepts connections until the token is cancelled; then requests under way are finished, idle
/// connections closed, and it returns when the last is gone.
pub async fn serve(
    listener: TcpListener,
    app: App,
    settings: ServerSettings,
    stop: CancellationToken,
) {
    let builder = Arc::new(builder(&settings));
    let room = Arc::new(Semaphore::new(settings.http_connections_max as usize));
    let connections = TaskTracker::new();
    while let Some((stream, permit)) = stop.run_until_cancelled(accept(&listener, &room)).await {
        let connection = Connection {
            builder: Arc::clone(&builder),
            app: app.clone(),
            first_request_within: settings.header_read_timeout(),
            stop: stop.clone(),
            _permit: permit,
        };
        connections.spawn(connection.run(stream));
    }
    // New connections are refused from here on, not left waiting for nobody.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) if is_the_clients(&error) => {
                debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                warn!(%error, "no connection can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

fn builder(settings: &ServerSettings) -> Builder {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout())
        .max_buf_size(BUFFER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(settings.http_header_bytes_max.saturating_mul(2))
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    builder
}

struct Connection {
    builder: Arc<Builder>,
    app: App,
    first_request_within: Duration,
    stop: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        // Responses are written whole; waiting for more to send with them would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY cannot be set");
        }
        // hyper has no limit on how long a response may take to be read. The kernel has one, for a
        // peer that acknowledges nothing as well as for one that opens no window.
        let unread_max = Some(self.first_request_within);
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(unread_max) {
            debug!(%error, "TCP_USER_TIMEOUT cannot be set");
        }
        let spoken = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            spoken.store(true, Ordering::Relaxed);
            let app = self.app.clone();
            async move { Ok::<_, Infallible>(app.handle(request).await) }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut first_request = pin!(sleep(self.first_request_within));
        let mut waits_for_first = true;
        let mut stops = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(error, "a connection failed");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stops => {
                    stops = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Until hyper knows which version the client speaks, no timeout of its own runs.
                () = first_request.as_mut(), if waits_for_first => {
                    waits_for_first = false;
                    if !spoken.load(Ordering::Relaxed) {
                        debug!("a connection brought no request in time");
                        return;
                    }
                }
            }
        }
    }
}
