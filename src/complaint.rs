//! Logs a lasting trouble once when it begins and once when it is over, however often it occurs.
//! Judges nothing: the caller says what the trouble means.

/// What is wrong now, and what has been logged about it.
#[derive(Debug)]
pub struct Complaint {
    /// What it is about, as the beginning of a sentence: `status file /run/s.json`.
    subject: String,
    said: Option<String>,
}

impl Complaint {
    /// Nothing is wrong yet.
    pub fn about(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), said: None }
    }

    /// Takes the outcome of a try; logs it if it changed.
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
