//! The client of the control API. One connection for each request: the socket is local and commands ask one thing.

use std::{
    io,
    path::{Path, PathBuf},
};

use futures::Stream;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Frame, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::{
    api::{Event, Problem},
    socket::{SocketError, check_length},
};

/// The longest answer, and the longest line of events, bytes.
const MAX_ANSWER: usize = 64 << 20;

type Body = BoxBody<Bytes, io::Error>;

/// Why the node did not answer a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node is running: nobody answers on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be used.
    #[error("the control socket {} cannot be used: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path cannot be a socket's.
    #[error(transparent)]
    Path(#[from] SocketError),
    /// The node said what is wrong.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The connection broke off.
    #[error("the node broke off: {reason}; see its log")]
    Broken {
        /// What happened.
        reason: String,
    },
    /// It did not speak our language.
    #[error("the node answered something that is not understood ({reason}); is it of another version?")]
    Answer {
        /// What is odd.
        reason: String,
    },
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken { reason: error.to_string() }
}

fn odd(error: impl std::fmt::Display) -> ClientError {
    ClientError::Answer { reason: error.to_string() }
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// An answer on its connection, which is closed when this is dropped.
struct Answer {
    response: Response<Incoming>,
    _driver: AbortOnDropHandle<()>,
}

/// A client of the node whose control socket is at a path.
#[derive(Debug, Clone)]
pub struct ControlClient {
    path: PathBuf,
}

impl ControlClient {
    /// A client for the socket at `path`. Does not connect yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a node answers on the socket.
    ///
    /// # Errors
    ///
    /// When there is a socket and the system refuses to connect to it for another reason than that nobody listens.
    pub async fn is_running(&self) -> Result<bool, ClientError> {
        match self.connect().await {
            Ok(_) => Ok(true),
            Err(ClientError::NotRunning { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for a document.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotRunning`], [`ClientError::Problem`] with what the node says, or a broken connection.
    pub async fn get<R: DeserializeOwned>(&self, route: &str) -> Result<R, ClientError> {
        Self::document(self.send(Method::GET, route, None, empty()).await?).await
    }

    /// Sends a document and waits for one.
    ///
    /// # Errors
    ///
    /// As [`ControlClient::get`].
    pub async fn post<R: DeserializeOwned>(&self, route: &str, body: &impl Serialize) -> Result<R, ClientError> {
        Self::document(self.send(Method::POST, route, Some(JSON), json(body)?).await?).await
    }

    /// Starts long work and gives each progress event to `progress`, until the result. Dropping the future cancels the work.
    ///
    /// # Errors
    ///
    /// As [`ControlClient::get`].
    pub async fn run<P: DeserializeOwned, R: DeserializeOwned>(
        &self,
        route: &str,
        body: &impl Serialize,
        progress: impl FnMut(P),
    ) -> Result<R, ClientError> {
        Self::events(self.send(Method::POST, route, Some(JSON), json(body)?).await?, progress).await
    }

    /// As [`ControlClient::run`], with a body that is sent as it comes; `route` has the parameters.
    ///
    /// # Errors
    ///
    /// As [`ControlClient::get`].
    pub async fn run_with_lines<P: DeserializeOwned, R: DeserializeOwned>(
        &self,
        route: &str,
        lines: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
        progress: impl FnMut(P),
    ) -> Result<R, ClientError> {
        use futures::StreamExt as _;
        let body = http_body_util::BodyExt::boxed(StreamBody::new(lines.map(|part| part.map(Frame::data))));
        Self::events(self.send(Method::POST, route, Some(LINES), body).await?, progress).await
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        check_length(&self.path)?;
        UnixStream::connect(&self.path).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { path: self.path.clone() }
            }
            _ => ClientError::Socket { path: self.path.clone(), source },
        })
    }

    async fn send(
        &self,
        method: Method,
        route: &str,
        content: Option<&'static str>,
        body: Body,
    ) -> Result<Answer, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The connection is driven beside the request, and ends with it: an endless body would keep it open otherwise.
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the control connection ended");
            }
        }));
        let mut request = Request::builder().method(method).uri(route).header(header::HOST, "tributary");
        if let Some(content) = content {
            request = request.header(header::CONTENT_TYPE, content);
        }
        let request = request.body(body).map_err(odd)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() == StatusCode::OK {
            return Ok(Answer { response, _driver: driver });
        }
        let status = response.status();
        let bytes = whole(response).await?;
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => problem.into(),
            Err(_) => odd(format!("status {status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))),
        })
    }

    async fn document<R: DeserializeOwned>(answer: Answer) -> Result<R, ClientError> {
        serde_json::from_slice(&whole(answer.response).await?).map_err(odd)
    }

    async fn events<P: DeserializeOwned, R: DeserializeOwned>(
        answer: Answer,
        mut progress: impl FnMut(P),
    ) -> Result<R, ClientError> {
        let Answer { response, _driver } = answer;
        let mut body = response.into_body();
        let mut line = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let mut rest = &data[..];
            while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                match serde_json::from_slice(&line).map_err(odd)? {
                    Event::Progress(event) => progress(event),
                    Event::Result(result) => return Ok(result),
                    Event::Problem(problem) => return Err(problem.into()),
                }
                line.clear();
            }
            if line.len() + rest.len() > MAX_ANSWER {
                return Err(odd("an event is too long"));
            }
            line.extend_from_slice(rest);
        }
        Err(broken("it ended before the work did"))
    }
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn json(body: &impl Serialize) -> Result<Body, ClientError> {
    let bytes = serde_json::to_vec(body).map_err(odd)?;
    Ok(Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
}

async fn whole(response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
    let mut body = response.into_body();
    let mut bytes = Vec::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0).min(1 << 20));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_ANSWER {
            return Err(odd("the answer is too long"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
