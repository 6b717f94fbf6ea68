//! One row: what was measured, its unit, its target and the number of each tool; and its text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::tool::Tool;

/// The columns of the table.
pub const TOOLS: [Tool; 4] = [Tool::Sersync, Tool::Rsync, Tool::Lsyncd, Tool::Loop];

/// The unit of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    Seconds,
    /// 10^6 bytes.
    Megabytes,
    /// 2^20 bytes, of memory.
    Mebibytes,
    /// A count.
    Count,
    /// A ratio.
    Times,
}

/// The target for sersync2's number.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// No target.
    None,
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
    /// At most this share of another tool's number.
    ShareOf(Tool, f64),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The figure it belongs to.
    pub figure: &'static str,
    /// What was measured.
    pub what: String,
    /// The unit of the numbers.
    pub unit: Unit,
    /// The target for sersync2.
    pub target: Target,
    /// The numbers; `None`: the tool did not finish within the limit.
    pub values: BTreeMap<Tool, Option<f64>>,
}

/// A row without its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The figure it belongs to.
    pub figure: &'static str,
    /// What was measured.
    pub what: &'static str,
    /// The unit of the numbers.
    pub unit: Unit,
    /// The target for sersync2.
    pub target: Target,
}

impl Row {
    /// The row of the table.
    pub fn line(&self) -> String {
        let mut line = format!("{:<11}{:<58}{:>16} ", self.figure, self.what, self.target_words());
        TOOLS.iter().for_each(|tool| _ = write!(line, "{:>13}", self.cell(*tool)));
        line.push_str(match self.is_met() {
            Some(true) => "  yes",
            Some(false) => "  NO",
            None => "",
        });
        line
    }

    /// Whether sersync2 meets the target; `None` if that is unknown.
    pub fn is_met(&self) -> Option<bool> {
        let value = self.values.get(&Tool::Sersync)?;
        let holds = |check: &dyn Fn(f64) -> bool| Some(value.is_some_and(check));
        match self.target {
            Target::None => None,
            Target::AtMost(most) => holds(&|value| value <= most),
            Target::AtLeast(least) => holds(&|value| value >= least),
            Target::ShareOf(tool, share) => {
                let other = (*self.values.get(&tool)?)?;
                holds(&|value| value <= share * other)
            }
        }
    }

    /// The target as the table shows it.
    pub fn target_words(&self) -> String {
        match self.target {
            Target::None => String::new(),
            Target::AtMost(value) => format!("<= {}", number(value, self.unit)),
            Target::AtLeast(value) => format!(">= {}", number(value, self.unit)),
            Target::ShareOf(tool, share) => format!("<= {share} {}", tool.name()),
        }
    }

    /// The cell of a tool.
    pub fn cell(&self, tool: Tool) -> String {
        match self.values.get(&tool) {
            None => String::new(),
            Some(None) => "never".into(),
            Some(Some(value)) => number(*value, self.unit),
        }
    }
}

/// A number with its unit, three digits or so.
pub fn number(value: f64, unit: Unit) -> String {
    let name = match unit {
        Unit::Ms => " ms",
        Unit::Seconds => " s",
        Unit::Megabytes => " MB",
        Unit::Mebibytes => " MiB",
        Unit::Count => "",
        Unit::Times => "x",
    };
    let digits = match unit {
        Unit::Count => 0,
        Unit::Seconds | Unit::Times | Unit::Megabytes => 2,
        Unit::Ms | Unit::Mebibytes => 1,
    };
    format!("{value:.digits$}{name}")
}
