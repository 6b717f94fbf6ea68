//! The doctor's findings, as a table for people and as JSON for programs.
//! Pure: examines nothing itself.

use std::fmt::Write;

use serde_json::{Value, json};

/// The version of the JSON; raised when a field is removed or changes its meaning.
const VERSION: u32 = 1;

/// The severity of a finding; the worst one decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingLevel {
    /// It was checked and is all right.
    Ok,
    /// It cannot be checked from here.
    Unknown,
    /// The mirror works, but not as well as it could.
    Warning,
    /// The mirror does not work.
    Error,
}

impl FindingLevel {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub verdict: FindingLevel,
    /// What was checked, in a word or two.
    pub check: &'static str,
    /// What was found.
    pub text: String,
    /// What to do; empty if there is nothing to do.
    pub advice: String,
}

impl Finding {
    /// A finding without a problem.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(FindingLevel::Ok, check, text.into(), String::new())
    }

    /// It cannot be checked; `advice` says how to find out.
    pub fn unknown(
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(FindingLevel::Unknown, check, text.into(), advice.into())
    }

    /// It works, but not as well as it could.
    pub fn warning(
        check: &'static str,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(FindingLevel::Warning, check, text.into(), advice.into())
    }

    /// It does not work.
    pub fn error(check: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(FindingLevel::Error, check, text.into(), advice.into())
    }

    fn new(verdict: FindingLevel, check: &'static str, text: String, advice: String) -> Self {
        Self { verdict, check, text, advice }
    }
}

/// The findings about this machine, or about one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its subject: this machine, or the remote's name.
    pub about: String,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
}

/// All findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoctorReport {
    /// This machine first, then the remotes in the order of the file.
    pub sections: Vec<Section>,
}

impl DoctorReport {
    fn count(&self, verdict: FindingLevel) -> usize {
        let all = self.sections.iter().flat_map(|section| &section.findings);
        all.filter(|finding| finding.verdict == verdict).count()
    }

    /// The exit code: 0 all is well, 1 warnings, 2 errors.
    pub fn exit_code(&self) -> u8 {
        match (self.count(FindingLevel::Error), self.count(FindingLevel::Warning)) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        }
    }

    /// The findings as a table.
    pub fn text(&self) -> String {
        let all = || self.sections.iter().flat_map(|section| &section.findings);
        let width = all().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for section in &self.sections {
            let _ = writeln!(text, "{}", section.about);
            for finding in &section.findings {
                let (word, check) = (finding.verdict.word(), finding.check);
                let _ = writeln!(text, "  {word:<7}  {check:<width$}  {}", finding.text);
                if !finding.advice.is_empty() {
                    let _ = writeln!(text, "  {:<7}  {:<width$}  do: {}", "", "", finding.advice);
                }
            }
        }
        text + &self.summary() + "\n"
    }

    fn summary(&self) -> String {
        let counted = |count: usize, word: &str| {
            format!("{count} {word}{}", if count == 1 { "" } else { "s" })
        };
        match (self.count(FindingLevel::Error), self.count(FindingLevel::Warning)) {
            (0, 0) => "ready: nothing is wrong".into(),
            (0, warnings) => format!("ready, with {}", counted(warnings, "warning")),
            (errors, 0) => format!("NOT READY: {}", counted(errors, "error")),
            (errors, warnings) => {
                format!("NOT READY: {}, {}", counted(errors, "error"), counted(warnings, "warning"))
            }
        }
    }

    /// The findings as JSON.
    pub fn json(&self) -> String {
        let finding = |it: &Finding| json!({ "verdict": it.verdict.word(), "check": it.check, "text": it.text, "advice": it.advice });
        let section = |it: &Section| {
            let findings: Vec<Value> = it.findings.iter().map(finding).collect();
            json!({ "about": it.about, "findings": findings })
        };
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        let told = json!({
            "version": VERSION,
            "errors": self.count(FindingLevel::Error),
            "warnings": self.count(FindingLevel::Warning),
            "sections": sections,
        });
        format!("{told:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: Vec<Finding>) -> DoctorReport {
        DoctorReport { sections: vec![Section { about: "/data/www -> h::m".into(), findings }] }
    }

    #[test]
    fn each_line_is_a_verdict_with_advice_below_it() {
        let found = report(vec![
            Finding::ok("port", "873 greets"),
            Finding::warning("clock", "2 h ahead", "switch on NTP there"),
            Finding::error("login", "refuses bob", "correct the password"),
        ]);
        let lines: Vec<String> = found.text().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "/data/www -> h::m",
                "  ok       port   873 greets",
                "  warning  clock  2 h ahead",
                "                  do: switch on NTP there",
                "  error    login  refuses bob",
                "                  do: correct the password",
                "NOT READY: 1 error, 1 warning",
            ]
        );
        assert_eq!(found.exit_code(), 2);
    }

    #[test]
    fn the_worst_finding_is_the_exit_code_and_what_cannot_be_known_is_no_fault() {
        let code = |findings| report(findings).exit_code();
        let unknown = || Finding::unknown("space", "not known", "look there");
        assert_eq!(code(vec![Finding::ok("port", ""), unknown()]), 0);
        assert_eq!(code(vec![Finding::warning("clock", "", ""), unknown()]), 1);
        assert_eq!(code(vec![Finding::warning("clock", "", ""), Finding::error("a", "", "")]), 2);
    }

    #[test]
    fn programs_read_the_same() {
        let found = report(vec![Finding::error("login", "refuses bob", "correct it")]);
        let told: Value = serde_json::from_str(&found.json()).unwrap();
        assert_eq!((&told["version"], &told["errors"]), (&json!(1), &json!(1)));
        assert_eq!(told["sections"][0]["findings"][0]["check"], "login");
        assert_eq!(told["sections"][0]["findings"][0]["advice"], "correct it");
    }
}
