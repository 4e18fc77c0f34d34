//! Delivers a photo, or the reason why there is none, to the app that asked for it (docs/photo.md): as multipart, to
//! its `/photo-upload` or to a URL of its choice. At most two attempts of 10 s, well within the 30 s that the SDK
//! waits.

use std::time::Duration;

use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use tokio::time::sleep;

use super::http_client::explain;
use crate::protocol::Secret;

/// The largest photo that the SDK's server accepts (docs/photo.md), in bytes.
pub const MAX_PHOTO: usize = 10 * 1024 * 1024;
/// Time limit of one attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Pause before the second attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// Where to deliver.
#[derive(Clone, Debug)]
pub enum Target {
    /// The server of the app with this webhook: `/photo-upload` beside it.
    App {
        /// For example `http://app.example.org:7010/webhook`.
        webhook_url: String,
    },
    /// The URL that the app named in its request.
    Custom {
        /// `http://` or `https://`.
        url: Secret,
        /// Sent as a bearer token.
        token: Option<Secret>,
    },
}

/// The result of a request for a photo.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The JPEG.
    Taken(Bytes),
    /// There is no photo.
    Failed {
        /// In the SDK's words (`PhotoErrorCode`), for example `CAMERA_BUSY`.
        code: String,
        /// The reason, for people.
        message: String,
    },
}

/// Why an app did not get the result of its request.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// Nothing can be posted to this URL.
    #[error("the photo's URL is not http:// or https://")]
    Url,
    /// The server could not be reached in two attempts.
    #[error("the app cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused, with this HTTP status.
    #[error("the app answered with HTTP status {0}")]
    Refused(u16),
}

/// Delivers photos with `client`.
#[derive(Clone, Debug)]
pub struct PhotoDelivery {
    client: reqwest::Client,
    custom_webhooks: bool,
}

impl PhotoDelivery {
    /// `custom_webhooks`: apps may name a URL of their own. Otherwise such a URL gives [`DeliveryError::Url`].
    pub fn new(client: reqwest::Client, custom_webhooks: bool) -> Self {
        Self { client, custom_webhooks }
    }

    /// Sends the app the result of its request. If its server refuses the photo, the app is sent a failure instead.
    pub async fn deliver(&self, target: &Target, request_id: &str, outcome: &Outcome) -> Result<(), DeliveryError> {
        let (url, token) = match target {
            Target::App { webhook_url } => (upload_url(webhook_url), None),
            Target::Custom { .. } if !self.custom_webhooks => return Err(DeliveryError::Url),
            Target::Custom { url, token } => (url.expose().to_owned(), token.as_ref()),
        };
        let is_http = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https");
        let url = reqwest::Url::parse(&url).ok().filter(is_http).ok_or(DeliveryError::Url)?;
        let too_large;
        let outcome = match outcome {
            Outcome::Taken(jpeg) if jpeg.len() > MAX_PHOTO => {
                let message =
                    format!("the photo has {} bytes; the app's server accepts at most {MAX_PHOTO}", jpeg.len());
                too_large = Outcome::Failed { code: "UPLOAD_FAILED".into(), message };
                &too_large
            }
            other => other,
        };
        let first = self.attempt(&url, token, request_id, outcome).await;
        if !first.as_ref().is_err_and(is_worth_another) {
            return first;
        }
        sleep(PAUSE).await;
        match self.attempt(&url, token, request_id, outcome).await {
            // The first attempt arrived after all: the SDK forgets a request once it is settled.
            Err(DeliveryError::Refused(404)) => Ok(()),
            second => second,
        }
    }

    async fn attempt(
        &self,
        url: &reqwest::Url,
        token: Option<&Secret>,
        request_id: &str,
        outcome: &Outcome,
    ) -> Result<(), DeliveryError> {
        let mut request = self.client.post(url.clone()).timeout(ATTEMPT).multipart(form(request_id, outcome));
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(|error| DeliveryError::Unreachable(explain(error)))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(DeliveryError::Refused(status.as_u16())) }
    }
}

fn is_worth_another(error: &DeliveryError) -> bool {
    match error {
        DeliveryError::Unreachable(_) => true,
        DeliveryError::Refused(status) => *status >= 500,
        DeliveryError::Url => false,
    }
}

/// `…/webhook` becomes `…/photo-upload`, also behind a proxy that adds a path prefix.
fn upload_url(webhook_url: &str) -> String {
    let end = webhook_url.find(['?', '#']).unwrap_or(webhook_url.len());
    let place = webhook_url[..end].trim_end_matches('/');
    let host = place.find("://").map_or(0, |scheme| scheme + 3);
    let folder = match place[host..].rfind('/') {
        Some(slash) => &place[..host + slash],
        None => place,
    };
    format!("{folder}/photo-upload")
}

/// The SDK recognises a failure by `type`. In a form `success` is text, which the SDK never takes for false.
fn form(request_id: &str, outcome: &Outcome) -> Form {
    let form = Form::new().text("requestId", request_id.to_owned());
    match outcome {
        Outcome::Taken(jpeg) => {
            // With a known length, so that servers without chunked bodies accept it.
            let part = Part::stream_with_length(jpeg.clone(), jpeg.len() as u64).file_name("photo.jpg");
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("content-type", reqwest::header::HeaderValue::from_static("image/jpeg"));
            form.text("type", "photo_upload").text("success", "true").part("photo", part.headers(headers))
        }
        Outcome::Failed { code, message } => form
            .text("type", "photo_error")
            .text("success", "false")
            .text("errorCode", code.clone())
            .text("errorMessage", message.clone()),
    }
}
