//! Logs a lasting problem once when it begins and once when it ends, even if it is reported many times.
//! The caller words the problem.

/// The current problem, as it was logged.
#[derive(Debug)]
pub struct Complaint {
    /// The subject, as the beginning of a sentence: `status file /run/s.json`.
    subject: String,
    said: Option<String>,
}

impl Complaint {
    /// Starts without a problem.
    pub fn about(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), said: None }
    }

    /// Notes the result of a try; logs it if it changed.
    pub fn note(&mut self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) if self.said.take().is_some() => log::info!("{}: works again", self.subject),
            Ok(()) => {}
            Err(reason) if self.said.is_none() => {
                log::warn!("{}: {reason}", self.subject);
                self.said = Some(reason);
            }
            Err(_) => {}
        }
    }
}
