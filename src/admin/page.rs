//! The page: one file, which refers to nothing else. Its script and style run because they carry the number that this
//! very answer names (`script-src 'nonce-…'`, CSP 3); nothing else does, and it may ask nobody but us.

use crate::sys::secret::secret;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::io;

/// The file, with a place for the number.
const PAGE: &str = include_str!("page.html");
const NONCE: &str = "{nonce}";

/// The page.
///
/// # Errors
/// When the system has no randomness to give.
pub fn page() -> io::Result<Response> {
    let nonce = secret()?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).map_err(io::Error::other)?;
    let mut response = (StatusCode::OK, PAGE.replace(NONCE, &nonce)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refers_to_no_other_place_and_has_no_script_outside_of_its_own() {
        for other in ["http://", "https://", "src=", "url(", "@import", "eval(", "innerHTML", " style=", " onclick="] {
            assert!(!PAGE.contains(other), "{other}");
        }
        assert_eq!(PAGE.matches("<script nonce=\"{nonce}\">").count(), PAGE.matches("<script").count());
        assert_eq!(PAGE.matches("<style nonce=\"{nonce}\">").count(), PAGE.matches("<style").count());
    }
}
