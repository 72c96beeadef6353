//! An axum server as a worker of maitred.
//!
//!     cargo build --release --features axum --example axum
//!     maitred -w 4 --adapter native -- target/release/examples/axum
//!
//! Started alone it is an ordinary server.

use axum::{Router, routing::get};
use maitred::worker::{AsyncListener, slot};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let hello = || async { format!("slot {:?}, process {}\n", slot(), std::process::id()) };
    let app = Router::new().route("/", get(hello));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = AsyncListener::bind(address.parse().map_err(std::io::Error::other)?).await?;
    axum::serve(listener, app).await
}
