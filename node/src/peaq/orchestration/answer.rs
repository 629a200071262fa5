//! Answers of the API: `{"item": …}`, `{"items": […]}`, `{"error": {"code", "message"}}`.

use axum::{
    Json,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{book::BookError, goods::GoodsError, payment::PaymentError, purchase::Refused};

/// One thing.
#[derive(Debug, Serialize)]
pub(super) struct Item<T> {
    pub(super) item: T,
}

/// Several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

/// Why a request was not answered. The code is for programs and does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

pub(super) type Answer<T> = Result<Json<T>, ApiError>;

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    pub(super) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(super) fn unfit(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// Something is wrong here, and whoever asked learns nothing about it.
    pub(super) fn trouble(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "an orchestration request cannot be answered");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the node cannot do this now; try again later")
    }

    /// Nothing can be fetched yet. peaq's SDK knows this code.
    pub(super) fn not_ready(message: impl Into<String>) -> Self {
        Self::conflict("STREAM_DELIVERY_NOT_READY", message)
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorText<'a>,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    code: &'a str,
    message: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorText { code: self.code, message: &self.message };
        (self.status, Json(ErrorBody { error })).into_response()
    }
}

impl From<BookError> for ApiError {
    fn from(error: BookError) -> Self {
        match error {
            BookError::NotFound { id } => {
                Self::not_found("PURCHASE_NOT_FOUND", format!("there is no purchase {id} for this token"))
            }
            BookError::Refused(refused) => refused.into(),
            BookError::Used { .. } => Self::conflict("PAYMENT_REFERENCE_USED", error.to_string()),
            BookError::Full => Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_PURCHASES", error.to_string()),
            other => Self::trouble(&other),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::NotAccepted => "PURCHASE_NOT_RESERVED",
            Refused::Over(_) => "PURCHASE_OVER",
            Refused::ProofWaits => "PAYMENT_PROOF_PENDING",
            Refused::Paid => "PAYMENT_ALREADY_VERIFIED",
            Refused::NotPaid => "STREAM_DELIVERY_NOT_READY",
            Refused::NothingWaits(_) => "NOTHING_TO_DECIDE",
            Refused::TooManyHandoffs => "TOO_MANY_DELIVERIES",
        };
        Self::conflict(code, refused.to_string())
    }
}

impl From<PaymentError> for ApiError {
    fn from(error: PaymentError) -> Self {
        Self::trouble(&error)
    }
}

impl From<GoodsError> for ApiError {
    fn from(error: GoodsError) -> Self {
        let text = error.to_string();
        match error {
            GoodsError::NotFound => Self::not_found("LISTING_NOT_FOUND", text),
            GoodsError::NotAPrefix => Self::unfit("SELECTION_NOT_A_PREFIX", text),
            GoodsError::Topic => Self::unfit("SELECTION_UNKNOWN_TOPIC", text),
            GoodsError::Compressed => Self::unfit("DATASET_COMPRESSED", text),
            GoodsError::ChunkTooLarge => Self::unfit("CHUNK_TOO_LARGE", text),
            GoodsError::TooManyChunks { .. } => Self::unfit("DATASET_TOO_LARGE", text),
            GoodsError::Gone => Self::conflict("DATASET_GONE", text),
            other => Self::trouble(&other),
        }
    }
}

/// A JSON body; what is wrong with one is an [`ApiError`].
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "INVALID_REQUEST",
                "the request needs a JSON body and content-type: application/json",
            )),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "BODY_TOO_LARGE",
                "the body of the request is too large",
            )),
            Err(rejection) => Err(ApiError::new(
                rejection.status(),
                "INVALID_REQUEST",
                format!("the body is not understood: {}", rejection.body_text()),
            )),
        }
    }
}
