//! The page in a real browser, in both languages, on a desktop and on a phone: what it shows, and screenshots.
//! Without Chromium these tests report that and are skipped (Debian: chromium-headless-shell).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use sersync::snapshot::Snapshot;

use super::fake::{Fake, crowd, page, troubled, well};
use crate::support::{TestDir, wait_until};

/// In order of preference: the first one can be as narrow as a phone.
const BROWSERS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];

/// How the page is viewed.
#[derive(Clone, Copy)]
struct View {
    width: u32,
    height: u32,
    lang: &'static str,
    dark: bool,
    /// The fragment after `#`: which part is open.
    open: &'static str,
}

const DESK: View = View { width: 1280, height: 900, lang: "en-US", dark: false, open: "" };
const PHONE: View = View { width: 390, height: 844, ..DESK };

fn browser() -> Option<&'static str> {
    let exists = |name: &&str| {
        let mut command = Command::new(name);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    let found = BROWSERS.into_iter().find(exists);
    if found.is_none() {
        crate::support::not_installed(&BROWSERS.join(" or "));
    }
    found
}

/// A browser that is controlled over a pipe (the DevTools protocol; each message ends with a NUL).
struct Tab {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: String,
    next: u64,
    _profile: TestDir,
}

impl Tab {
    /// Opens the page and waits until it shows the first snapshot.
    fn open(browser: &str, address: SocketAddr, view: View) -> Self {
        let profile = TestDir::new();
        // The protocol's pipes are the descriptors 3 and 4; the shell puts ours there.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh", browser])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"])
            .args(["--disable-component-update", "--disable-sync", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--lang={}", view.lang))
            .arg(format!("--accept-lang={}", view.lang))
            .env("TZ", "UTC")
            .env("LANGUAGE", view.lang)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        let session = String::new();
        let mut tab = Self { child, to, from, session, next: 0, _profile: profile };
        let target = tab.call("Target.createTarget", json!({"url": "about:blank"}));
        let of = json!({"targetId": target["targetId"], "flatten": true});
        let attached = tab.call("Target.attachToTarget", of);
        tab.session = attached["sessionId"].as_str().unwrap().into();
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": view.width, "height": view.height, "deviceScaleFactor": 1, "mobile": view.width < 600}),
        );
        let scheme = if view.dark { "dark" } else { "light" };
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        tab.call("Emulation.setEmulatedMedia", scheme);
        let url = format!("http://{address}/#{}", view.open);
        tab.call("Page.navigate", json!({ "url": url }));
        wait_until("the page is live", || {
            tab.evaluate("document.getElementById('live')?.className") == json!("on")
        });
        tab
    }

    /// Sends a command and waits for its answer.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.next {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of a JavaScript expression.
    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// The document as it is now.
    fn document(&mut self) -> String {
        self.evaluate("document.documentElement.outerHTML").as_str().unwrap().into()
    }

    /// The whole page as a picture.
    fn picture(&mut self, file: &Path) {
        let params = json!({"format": "png", "captureBeyondViewport": false});
        let answer = self.call("Page.captureScreenshot", params);
        let data = answer["data"].as_str().unwrap();
        let png = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
        std::fs::write(file, png).unwrap();
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Opens the page with this snapshot in this view, and calls `then`.
fn look<T>(browser: &str, of: &Snapshot, view: View, then: impl FnOnce(&mut Tab) -> T) -> T {
    let page = page(Fake::new(of.clone()).reader());
    then(&mut Tab::open(browser, page.address(), view))
}

fn shown(browser: &str, of: &Snapshot, view: View) -> String {
    look(browser, of, view, Tab::document)
}

fn picture(browser: &str, of: &Snapshot, view: View, file: &Path) {
    look(browser, of, view, |tab| tab.picture(file));
}

/// The words between the tags, as a reader sees them.
fn words(document: &str) -> String {
    let body = document.split("<body").nth(1).unwrap_or_default();
    let body = body.split("<script>").next().unwrap_or_default();
    let texts = body.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text);
    let text: String = texts.collect::<Vec<_>>().join(" ");
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_browser_shows_what_is_wrong_first_and_with_words() {
    let Some(browser) = browser() else { return };
    let document = shown(browser, &troubled(), DESK);
    let words = words(&document);
    for text in [
        "Something is down",
        "192.0.2.21::www is down for 19 min: connection refused",
        "What to do: look whether the machine runs",
        "Full sync 61 %",
        "22 paths cannot be delivered",
        "Needs a decision",
    ] {
        assert!(words.contains(text), "{text:?} is not in\n{words}");
    }
    assert!(document.contains("<title>Something is down – sersync</title>"), "{words}");
    let mut snapshot = well();
    let document = shown(browser, &snapshot, DESK);
    for text in ["All is well", "full sync 1 h 35 min ago"] {
        assert!(self::words(&document).contains(text), "{document}");
    }
    snapshot.instance.journal_incomplete = true;
    snapshot.instance.state_dir = Some("/var/lib/sersync/www".into());
    let full = self::words(&shown(browser, &snapshot, DESK));
    assert!(full.contains("what is pending cannot be written down"), "{full}");
    let alarms = document.split("id=\"alarms-card\"").next().unwrap_or_default();
    let alarms = alarms.rsplit('<').next().unwrap_or_default();
    assert!(alarms.contains("hidden"), "an empty list of alarms is shown: {alarms}");
}

#[test]
fn a_browser_in_chinese_gets_chinese_and_names_are_never_markup() {
    let Some(browser) = browser() else { return };
    let view = View { lang: "zh-CN", open: "all", dark: true, ..PHONE };
    let document = shown(browser, &troubled(), view);
    let words = words(&document);
    assert!(document.contains("<html lang=\"zh-CN\">"), "{words}");
    for text in [
        "有远端或目录不可用",
        "处理办法：检查那台机器是否开机",
        "全量同步 61 %",
        "最近的错误和警告",
    ] {
        assert!(words.contains(text), "{text:?} is not in\n{words}");
    }
    for name in [
        "upload/<script>document.title='owned'</script>.html",
        "upload/<img src=x onerror=alert(1)>.png",
        "<b>bold</b>&amp;\\012new line",
    ] {
        assert!(
            words.contains(name)
                || document.contains(
                    &name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
                ),
            "{name:?} is not in\n{words}"
        );
    }
    assert!(!document.contains("<title>owned"), "{document}");
    assert_eq!(document.matches("<script>").count(), 1, "{document}");
    assert!(!document.contains("<img"), "{document}");
}

#[test]
fn two_hundred_remotes_begin_with_those_that_are_not_well() {
    let Some(browser) = browser() else { return };
    let words = words(&shown(browser, &crowd(), DESK));
    assert!(words.contains("Show all 200"), "{words}");
    assert!(words.contains("197 up") || words.contains("up"), "{words}");
    let at = |name: &str| words.rfind(name).unwrap_or(usize::MAX);
    assert!(at("connection refused (192.0.2.21") < at("198.51.100.4::static"), "{words}");
    assert!(!words.contains("198.51.100.199::static"), "{words}");
}

#[test]
fn a_phone_needs_no_sideways_scrolling_and_the_keyboard_reaches_everything() {
    let Some(browser) = browser() else { return };
    let view = View { open: "all", ..PHONE };
    look(browser, &troubled(), view, |tab| {
        let width = tab.evaluate("document.documentElement.scrollWidth");
        assert_eq!(width, json!(PHONE.width));
        let unreachable = tab.evaluate(
            "[...document.querySelectorAll('button, input, summary, a')].filter(node => node.tabIndex < 0).length",
        );
        assert_eq!(unreachable, json!(0));
        let nameless = tab.evaluate(
            "[...document.querySelectorAll('button, input, [role=img], [role=progressbar]')]\
             .filter(node => !(node.textContent.trim() || node.getAttribute('aria-label'))).length",
        );
        assert_eq!(nameless, json!(0));
        tab.evaluate("document.getElementById('lang').click()");
        assert_eq!(tab.evaluate("document.documentElement.lang"), json!("zh-CN"));
        tab.evaluate("document.getElementById('theme').click()");
        assert_eq!(tab.evaluate("document.documentElement.dataset.theme"), json!("dark"));
    });
}

#[test]
fn a_path_is_found_among_the_recent_deliveries() {
    let Some(browser) = browser() else { return };
    look(browser, &troubled(), View { open: "deliveries", ..DESK }, |tab| {
        tab.evaluate(
            "const box = document.getElementById('find-path'); box.value = 'SITE.css'; box.dispatchEvent(new Event('input'))",
        );
        let rows = tab.evaluate(
            "[...document.querySelectorAll('#d-deliveries tbody tr')].every(row => row.textContent.includes('site.css'))",
        );
        assert_eq!(rows, json!(true));
        let found = tab.evaluate("document.getElementById('found').textContent");
        assert_eq!(found, json!("39 found"));
    });
}

#[test]
fn a_change_is_shown_without_a_reload() {
    let Some(browser) = browser() else { return };
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let mut tab = Tab::open(browser, page.address(), DESK);
    let headline = "document.getElementById('headline').textContent";
    assert_eq!(tab.evaluate(headline), json!("All is well"));
    fake.change(troubled());
    wait_until("the page shows it", || tab.evaluate(headline) == json!("Something is down"));
}

/// `make screenshots`: screenshots of the page for review, and the two in the READMEs.
#[test]
#[ignore = "makes pictures: make screenshots"]
fn pictures() {
    let Some(browser) = browser() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("target/pictures");
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| -> PathBuf { dir.join(format!("{name}.png")) };
    let tall = |view: View, height| View { height, ..view };
    let zh = |view: View| View { lang: "zh-CN", ..view };
    let dark = |view: View| View { dark: true, ..view };
    let all = |view: View, height| View { open: "all", height, ..view };
    for (name, snapshot, view) in [
        ("desk-well", well(), DESK),
        ("desk-troubled", troubled(), tall(DESK, 1500)),
        ("desk-troubled-dark", troubled(), dark(tall(DESK, 1500))),
        ("desk-zh", troubled(), zh(tall(DESK, 1500))),
        ("desk-all", troubled(), all(DESK, 4200)),
        ("desk-crowd", crowd(), tall(DESK, 1800)),
        ("phone-well", well(), tall(PHONE, 1500)),
        ("phone-troubled-dark", troubled(), dark(tall(PHONE, 2600))),
        ("phone-zh", troubled(), zh(tall(PHONE, 2600))),
        ("phone-all", troubled(), all(PHONE, 6000)),
    ] {
        picture(browser, &snapshot, view, &file(name));
    }
    std::fs::write(dir.join("troubled.json"), serde_json::to_vec(&troubled()).unwrap()).unwrap();
    std::fs::write(dir.join("crowd.json"), serde_json::to_vec(&crowd()).unwrap()).unwrap();
    let images = root.join("docs/images");
    std::fs::create_dir_all(&images).unwrap();
    picture(browser, &troubled(), tall(DESK, 1010), &images.join("page.png"));
    picture(browser, &troubled(), zh(tall(DESK, 1010)), &images.join("page.zh-CN.png"));
}
