//! Formats a message for each chat service, with a signature where the service needs one.
//! Pure: sends nothing; the time and the secrets are arguments.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::hmac;
use serde_json::{Value, json};

use super::message::Message;
use crate::config::telling::Template;

/// A request to a webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// The address, with the signature if the service expects it there.
    pub url: String,
    /// The body, as JSON.
    pub body: Value,
}

/// The account at a service.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// The webhook's address.
    pub url: &'a str,
    /// The key of the signature (DingTalk, Feishu).
    pub secret: Option<&'a str>,
    /// The chat that gets the message (Telegram).
    pub chat: Option<&'a str>,
}

/// Formats the message for a service, at `now_ms` of the wall clock.
pub fn post(template: Template, message: &Message, account: Account<'_>, now_ms: u64) -> Post {
    let url = account.url.to_owned();
    match template {
        Template::Json => Post { url, body: message.json() },
        Template::DingTalk => Post {
            url: account.secret.map_or(url.clone(), |secret| ding_talk_url(&url, secret, now_ms)),
            body: json!({"msgtype": "text", "text": {"content": cut(message.text(), 18_000)}}),
        },
        Template::WeCom => {
            // The service accepts 2,048 bytes.
            let text = cut(message.text(), 2_000);
            Post { url, body: json!({"msgtype": "text", "text": {"content": text}}) }
        }
        Template::Feishu => {
            let text = cut(message.text(), 18_000);
            let mut body = json!({"msg_type": "text", "content": {"text": text}});
            if let Some(secret) = account.secret {
                let seconds = now_ms / 1_000;
                body["timestamp"] = seconds.to_string().into();
                body["sign"] = feishu_sign(secret, seconds).into();
            }
            Post { url, body }
        }
        Template::Slack => {
            let text = cut(message.text(), 30_000);
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            Post { url, body: json!({ "text": text }) }
        }
        Template::Telegram => {
            // The service accepts 4,096 characters.
            let text = cut(message.text(), 4_000);
            let chat = account.chat.unwrap_or_default();
            Post {
                url,
                body: json!({"chat_id": chat, "text": text, "disable_web_page_preview": true}),
            }
        }
    }
}

/// Checks the body of an answer with status 200, because some services report a failure only there.
///
/// # Errors
/// The service's own message.
pub fn judge(template: Template, answer: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(answer).unwrap_or_default();
    let code = match template {
        Template::DingTalk | Template::WeCom => value.get("errcode"),
        Template::Feishu => value.get("code").or_else(|| value.get("StatusCode")),
        Template::Telegram => {
            return match value.get("ok").and_then(Value::as_bool) {
                Some(false) => Err(words(&value, "description")),
                _ => Ok(()),
            };
        }
        Template::Json | Template::Slack => None,
    };
    match code.and_then(Value::as_i64) {
        None | Some(0) => Ok(()),
        Some(code) => {
            let key = if template == Template::Feishu { "msg" } else { "errmsg" };
            Err(format!("the service refuses it: {} (code {code})", words(&value, key)))
        }
    }
}

fn words(value: &Value, key: &str) -> String {
    let words = value.get(key).and_then(Value::as_str).unwrap_or("without a reason");
    words.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Appends `timestamp` and `sign` to the address: the HMAC of "timestamp\nsecret" with the secret as key.
fn ding_talk_url(url: &str, secret: &str, now_ms: u64) -> String {
    let sign = hmac_sha256(secret.as_bytes(), format!("{now_ms}\n{secret}").as_bytes());
    let sign = utf8_percent_encode(&sign, NON_ALPHANUMERIC);
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}timestamp={now_ms}&sign={sign}")
}

/// The HMAC of an empty message with "timestamp\nsecret" as key.
fn feishu_sign(secret: &str, seconds: u64) -> String {
    hmac_sha256(format!("{seconds}\n{secret}").as_bytes(), b"")
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    STANDARD.encode(hmac::sign(&key, text))
}

/// Cuts the text to at most `max` bytes.
fn cut(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::condition::AlertKind;
    use crate::alert::ledger::{Alert, AlertMessage, AlertState};

    fn message(text: &str) -> Message {
        let alert = Alert {
            kind: AlertKind::Down,
            state: AlertState::Raised,
            subject: "h::m".into(),
            text: text.into(),
            since_ms: 0,
        };
        let due = AlertMessage { alerts: vec![alert], omitted: 0 };
        Message { host: "web1".into(), config: "/etc/c.xml".into(), due, at_ms: 0 }
    }

    const ACCOUNT: Account<'_> = Account {
        url: "https://h/robot/send?access_token=T",
        secret: Some("SEC000"),
        chat: Some("-42"),
    };

    #[test]
    fn each_service_gets_its_form() {
        let of =
            |template| post(template, &message("down <now> & then"), ACCOUNT, 1_700_000_000_000);
        let line = "[ALERT] down <now> & then\n";
        let text = format!("sersync on web1 (/etc/c.xml)\n{line}");
        assert_eq!(of(Template::DingTalk).body["text"]["content"], text);
        assert_eq!(of(Template::WeCom).body["msgtype"], "text");
        assert_eq!(of(Template::Feishu).body["content"]["text"], text);
        assert_eq!(of(Template::Telegram).body["chat_id"], "-42");
        assert!(of(Template::Slack).body["text"].as_str().unwrap().contains("&lt;now&gt; &amp;"));
        assert_eq!(of(Template::Json).body["alerts"][0]["state"], "raised");
        assert_eq!(of(Template::Slack).url, ACCOUNT.url);
    }

    /// The expected values come from Python's hmac and base64, by the rule in each service's manual.
    #[test]
    fn signatures_are_those_of_the_services_manuals() {
        let ding_talk = post(Template::DingTalk, &message(""), ACCOUNT, 1_700_000_000_000);
        let expected = "https://h/robot/send?access_token=T&timestamp=1700000000000&sign=ltBBey5eZrWKh1cPzFIdz3v3xpkc4Tjx4lLsPSHqdtA%3D";
        assert_eq!(ding_talk.url, expected);
        let feishu = post(Template::Feishu, &message(""), ACCOUNT, 1_700_000_000_000);
        assert_eq!(feishu.body["timestamp"], "1700000000");
        assert_eq!(feishu.body["sign"], "QKhXycVUGrhA1dUEbXA2Vo/zGkv/W88IgYgKNA7Xmk0=");
    }

    #[test]
    fn a_service_that_refuses_with_a_good_status_is_understood() {
        let cases = [
            (Template::DingTalk, r#"{"errcode":0,"errmsg":"ok"}"#, None),
            (
                Template::DingTalk,
                r#"{"errcode":310000,"errmsg":"sign not match"}"#,
                Some("sign not match"),
            ),
            (
                Template::WeCom,
                r#"{"errcode":93000,"errmsg":"invalid webhook url"}"#,
                Some("invalid webhook"),
            ),
            (Template::Feishu, r#"{"StatusCode":0}"#, None),
            (
                Template::Feishu,
                r#"{"code":19021,"msg":"sign match fail"}"#,
                Some("sign match fail"),
            ),
            (
                Template::Telegram,
                r#"{"ok":false,"description":"chat not found"}"#,
                Some("chat not found"),
            ),
            (Template::Slack, "ok", None),
        ];
        for (template, answer, expected) in cases {
            match (judge(template, answer), expected) {
                (Ok(()), None) => {}
                (Err(said), Some(words)) => assert!(said.contains(words), "{said}"),
                other => panic!("{template:?} {answer}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_long_message_is_cut_to_what_the_service_takes() {
        let long = post(Template::WeCom, &message(&"断".repeat(3_000)), ACCOUNT, 0);
        assert!(long.body["text"]["content"].as_str().unwrap().len() <= 2_048);
    }
}
