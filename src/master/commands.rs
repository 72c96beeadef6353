//! Requests of the control socket, and signals that mean the same.

use super::run::Master;
use super::status::add_usage;
use crate::control::{self, Size, Until, done, refusal};
use crate::core::fleet::{self, Manner, Stop};
use crate::core::ids::Generation;
use crate::lifecycle::health::rhythm;
use crate::lifecycle::reload::ReloadError;
use crate::sys::process;
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::{info, warn};

impl Master {
    /// Answers a request of the control socket.
    pub(super) async fn answer(&mut self, request: control::Request, answer: oneshot::Sender<String>) {
        match request {
            control::Request::Status => self.tell_status(answer),
            control::Request::Reload { manner, until } => self.reload_asked(manner, until, answer).await,
            control::Request::Scale { to } => self.scale_asked(to, answer).await,
            control::Request::Stop => {
                info!("asked to stop");
                let _ = answer.send(done("stopping"));
                self.handle_fleet(fleet::Event::StopAsked(Stop::Graceful)).await;
            }
            // It comes as an event of its own, with the client.
            control::Request::Upgrade => {}
        }
    }

    /// Reading `/proc` takes a while, so it happens in the background.
    fn tell_status(&self, answer: oneshot::Sender<String>) {
        self.front.common.opens.ask_now();
        let (mut status, groups, ports) = (self.view().status(), self.workers.groups(), self.front.ports());
        self.front.check_sum();
        let looked = match self.front.common.aside.place() {
            Ok(place) => place.run(move || {
                add_usage(&mut status, &process::usage(&groups, &ports));
                serde_json::to_string(&status).unwrap_or_else(|error| refusal(&error.to_string()))
            }),
            Err(busy) => return drop(answer.send(refusal(&busy.to_string()))),
        };
        tokio::task::spawn_local(async move {
            let text = looked.await.unwrap_or_else(|broke_off| refusal(&broke_off.to_string()));
            // A client that is gone needs no answer.
            let _ = answer.send(text);
        });
    }

    async fn begin_reload(&mut self, manner: Manner) -> Result<(), ReloadError> {
        let asked = self.reloads.read_again(manner, &self.config, &self.workers.starter, &self.fleet)?;
        self.handle_fleet(asked).await;
        Ok(())
    }

    /// `HUP`.
    pub(super) async fn reload_by_signal(&mut self) {
        if let Err(error) = self.begin_reload(Manner::Rolling).await {
            warn!(%error, "cannot reload; the running workers serve on");
        }
    }

    /// `maitred reload` and `restart`.
    async fn reload_asked(&mut self, manner: Manner, until: Until, answer: oneshot::Sender<String>) {
        let may_wait = match until {
            Until::Done => self.reloads.may_wait(),
            Until::Accepted => Ok(()),
        };
        let begun = match may_wait {
            Ok(()) => self.begin_reload(manner).await,
            crowded => crowded,
        };
        let text = match (begun, until) {
            (Err(error), _) => {
                warn!(%error, "cannot reload; the running workers serve on");
                refusal(&format!("{error}; the running workers serve on"))
            }
            (Ok(()), Until::Accepted) => match self.fleet.reloading() {
                Some(generation) => done(&format!("reloading: generation {generation} starts")),
                None => done("the reload waits for its turn"),
            },
            (Ok(()), Until::Done) => return self.reloads.wait(answer, &self.fleet),
        };
        // A client that is gone needs no answer.
        let _ = answer.send(text);
    }

    /// The new generation serves: its configuration is in force.
    pub(super) fn reload_done(&mut self, generation: Generation) {
        if let Some(config) = self.reloads.done(generation, &mut self.fleet) {
            self.checks.rhythm.set(rhythm(&config.life));
            self.workers.starter.config = Rc::clone(&config);
            self.config = config;
        }
    }

    /// `maitred scale`.
    async fn scale_asked(&mut self, size: Size, answer: oneshot::Sender<String>) {
        let before = self.fleet.wanted();
        let text = match self.fleet.size_after(size.into()) {
            Ok(workers) => {
                self.handle_fleet(fleet::Event::Resize(size.into())).await;
                done(&format!("{before} workers become {workers}"))
            }
            Err(refused) => refusal(&refused.to_string()),
        };
        let _ = answer.send(text);
    }
}
