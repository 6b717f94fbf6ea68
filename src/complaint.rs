//! A trouble that lasts is said once when it begins and once when it is over, however often it is met.
//! Judges nothing: whoever meets it says what it means.

/// What is wrong now, and what has been said about it.
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

    /// Takes the outcome of a try; says it when it is news.
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
