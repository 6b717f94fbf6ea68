//! The channels that send a message: a command, a mail, a webhook. A message that cannot be sent is kept and retried.
//! Nothing passes through a shell, and no secret is logged.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;

use super::complaint;
use super::message::Message;
use super::template::{Account, judge, post};
use crate::complaint::Complaint;
use crate::config::telling::{AlertRule, Template};
use crate::ground::program::{self, Ended, RunError, SENDMAILS};
use crate::secret::Secret;
use crate::web::Web;

/// How long a program may run.
const RUN_TIME: Duration = Duration::from_secs(60);
/// The maximum number of messages that wait for one channel; one more drops the oldest.
const QUEUE: usize = 20;
/// The first pause after a failure; it doubles each time.
const RETRY_MS_MIN: u64 = 10_000;
/// The longest pause.
const RETRY_MS_MAX: u64 = 600_000;

/// All channels of one `<alert>`.
pub struct Channels(Vec<Channel>);

struct Channel {
    way: Way,
    queue: VecDeque<Message>,
    tries: u32,
    not_before_ms: u64,
    complaint: Complaint,
}

enum Way {
    Command(Vec<String>),
    Mail(Vec<String>),
    Webhook(Box<Webhook>),
}

struct Webhook {
    url: Secret,
    template: Template,
    secret: Option<Secret>,
    chat: Option<String>,
    web: Web,
}

impl Channels {
    pub fn new(rule: &AlertRule) -> Self {
        let command = Some(&rule.command).filter(|words| !words.is_empty());
        let mail = Some(&rule.mail).filter(|addresses| !addresses.is_empty());
        let webhook = rule.webhook.as_ref().map(|url| {
            Way::Webhook(Box::new(Webhook {
                url: url.clone(),
                template: rule.template,
                secret: rule.secret.clone(),
                chat: rule.chat.clone(),
                web: Web::default(),
            }))
        });
        let command = command.map(|words| Way::Command(words.clone()));
        let mail = mail.map(|addresses| Way::Mail(addresses.clone()));
        Self([command, mail, webhook].into_iter().flatten().map(Channel::new).collect())
    }

    /// Sends a message over every channel.
    pub fn send(&mut self, message: &Message) {
        for channel in &mut self.0 {
            if channel.queue.len() >= QUEUE {
                channel.queue.pop_front();
            }
            channel.queue.push_back(message.clone());
            channel.work(message.at_ms);
        }
    }

    /// Retries unsent messages that are due.
    pub fn work(&mut self, now_ms: u64) {
        self.0.iter_mut().for_each(|channel| channel.work(now_ms));
    }

    /// True while unsent messages wait.
    pub fn is_busy(&self) -> bool {
        self.0.iter().any(|channel| !channel.queue.is_empty())
    }

    /// Sends a message over every channel, once; returns each result.
    pub fn try_each(self, message: &Message) -> Vec<(String, Result<(), String>)> {
        let each =
            |channel: &Channel| (channel.way.name(), channel.way.carry(message, message.at_ms));
        self.0.iter().map(each).collect()
    }
}

impl Channel {
    fn new(way: Way) -> Self {
        let complaint = complaint(&way.name());
        Self { way, queue: VecDeque::new(), tries: 0, not_before_ms: 0, complaint }
    }

    fn work(&mut self, now_ms: u64) {
        while let Some(message) = self.queue.front().filter(|_| now_ms >= self.not_before_ms) {
            let outcome = self.way.carry(message, now_ms);
            let is_sent = outcome.is_ok();
            self.complaint.note(outcome.map_err(|reason| format!("{reason}; sersync retries")));
            if !is_sent {
                let pause = RETRY_MS_MIN << self.tries.min(10);
                self.tries += 1;
                self.not_before_ms = now_ms + pause.min(RETRY_MS_MAX);
                return;
            }
            self.tries = 0;
            self.queue.pop_front();
        }
    }
}

impl Way {
    fn name(&self) -> String {
        match self {
            Self::Command(words) => format!("command {}", words[0]),
            Self::Mail(addresses) => format!("mail to {}", addresses.join(", ")),
            Self::Webhook(webhook) => format!("webhook {}", webhook.url),
        }
    }

    fn carry(&self, message: &Message, now_ms: u64) -> Result<(), String> {
        match self {
            Self::Command(words) => run_command(words, message),
            Self::Mail(addresses) => send_mail(addresses, message),
            Self::Webhook(webhook) => webhook.post(message, now_ms),
        }
    }
}

impl Webhook {
    fn post(&self, message: &Message, now_ms: u64) -> Result<(), String> {
        let url = self.url.read()?;
        let secret = self.secret.as_ref().map(Secret::read).transpose()?;
        let account = Account { url: &url, secret: secret.as_deref(), chat: self.chat.as_deref() };
        let post = post(self.template, message, account, now_ms);
        let answer = self.web.post(&post.url, "application/json", &post.body.to_string())?;
        judge(self.template, &answer)
    }
}

/// Runs a command with the message as JSON on standard input, and its main facts in the environment.
fn run_command(words: &[String], message: &Message) -> Result<(), String> {
    let mut command = command(&words[0]);
    command
        .args(&words[1..])
        .env("SERSYNC_ALERT_SUMMARY", message.subject())
        .env("SERSYNC_ALERT_TEXT", message.text())
        .env("SERSYNC_CONFIG", &message.config);
    if let Some(first) = message.due.alerts.first() {
        command
            .env("SERSYNC_ALERT_KIND", first.kind.name())
            .env("SERSYNC_ALERT_STATE", first.state.name())
            .env("SERSYNC_ALERT_SUBJECT", &first.subject);
    }
    let ended = program::run(command, message.json().to_string(), 0, RUN_TIME);
    outcome(&words[0], ended).map_err(|reason| format!("{reason}; check command=\"...\""))
}

fn send_mail(addresses: &[String], message: &Message) -> Result<(), String> {
    let subject = base64::engine::general_purpose::STANDARD.encode(message.subject());
    let mail = format!(
        "To: {}\nSubject: =?utf-8?B?{subject}?=\nAuto-Submitted: auto-generated\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}",
        addresses.join(", "),
        message.text()
    );
    for program in SENDMAILS {
        let mut sendmail = command(program);
        sendmail.args(["-oi", "-t"]);
        match program::run(sendmail, mail.clone(), 0, RUN_TIME) {
            Err(RunError::NotThere) => {}
            ended => return outcome(program, ended),
        }
    }
    Err("there is no sendmail on this machine; install a mail program such as msmtp-mta or postfix, or use \
         webhook="
        .to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program that an operator names for alerts, and sendmail"
)]
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The result of a program, for people.
fn outcome(name: &str, ended: Result<Ended, RunError>) -> Result<(), String> {
    match ended {
        Ok(Ended { status, .. }) if status.success() => Ok(()),
        Ok(Ended { status, .. }) => Err(format!("{name} failed: {status}")),
        Err(error) => Err(format!("{name} {error}")),
    }
}
