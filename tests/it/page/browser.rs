//! The page in a real browser, in both languages, on a desktop and on a phone: what it shows, and screenshots.
//! Without Chromium these tests report that and are skipped (Debian: chromium-headless-shell).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};
use sersync::snapshot::health::HealthThresholds;
use sersync::snapshot::{DeletionState, RootState, Snapshot, SyncState};

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

    /// Presses a key, as a person does.
    fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let params = json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params);
        }
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
        "192.0.2.21::www is down for 19 min: failed to connect",
        "What to do: nobody listens there",
        "Full sync 61 %",
        "22 paths cannot be delivered",
        "Alarms",
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
    assert!(full.contains("make room in /var/lib/sersync/www"), "{full}");
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
        "处理办法：那里没有程序在监听",
        "全量同步 61 %",
        "最近的错误和警告",
        // An alarm, a warning, an error with advice in it, and one with a time.
        "/data/www 下已知的 18400 项中有 12044 项不见了",
        "内核丢弃了 /data/www 下的事件",
        "192.0.2.21::www 不可用：无法连接 192.0.2.21:873：连接被拒绝：那里没有程序在监听",
        "没有权限 (13)；已记入失败日志，5 分钟后重试",
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
    assert!(at("down 192.0.2.21::www full sync") < at("198.51.100.4::static"), "{words}");
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
        // The layout makes blocks of the tables; their roles keep them tables for a screen reader.
        let plain = "[...document.querySelectorAll('table, tbody, tr, td, th')].filter(node => !node.role).length";
        assert_eq!(tab.evaluate(plain), json!(0));
        tab.evaluate("document.getElementById('lang').click()");
        assert_eq!(tab.evaluate("document.documentElement.lang"), json!("zh-CN"));
        tab.evaluate("document.getElementById('theme').click()");
        assert_eq!(tab.evaluate("document.documentElement.dataset.theme"), json!("dark"));
    });
}

/// What has the focus, and how wide its outline is: `#lang 2px`.
const FOCUSED: &str = "(() => { const node = document.activeElement, style = getComputedStyle(node); \
    const name = node.id || node.closest('[id]').id + ' ' + node.localName; \
    return `#${name} ${style.outlineStyle === 'none' ? 'no outline' : style.outlineWidth}`; })()";

/// The texts whose contrast to what is behind them is below 4.5, as WCAG AA wants it.
const FAINT: &str = "(() => { \
    const rgb = color => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; }; \
    const light = color => color.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) \
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0); \
    const behind = node => { const color = rgb(getComputedStyle(node).backgroundColor); \
        return color[3] > 0 || !node.parentElement ? color : behind(node.parentElement); }; \
    return [...document.querySelectorAll('body *')] \
        .filter(node => node.localName !== 'script' && node.checkVisibility() && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())) \
        .map(node => { const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a); \
            return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)]; }) \
        .filter(([contrast]) => contrast < 4.5).map(([contrast, text]) => `${contrast.toFixed(1)} ${text}`).join('; '); })()";

#[test]
fn the_keyboard_alone_works_the_page_and_the_focus_and_every_text_are_seen() {
    let Some(browser) = browser() else { return };
    look(browser, &crowd(), View { open: "all", ..DESK }, |tab| {
        for theme in ["light", "dark"] {
            tab.evaluate(&format!("document.documentElement.dataset.theme = '{theme}'"));
            assert_eq!(tab.evaluate(FAINT), json!(""), "{theme}");
        }
        let stops = [
            "skip",
            "lang",
            "theme",
            "find-remote",
            "all-remotes",
            "d-errors summary",
            "d-fail summary",
            "d-deliveries summary",
            "find-path",
            "all-paths",
            "d-roots summary",
            "d-log summary",
            "d-log pre",
            "d-config summary",
            "d-config pre",
            "main a",
        ];
        for stop in stops {
            tab.press("Tab", 9, "");
            let focused = tab.evaluate(FOCUSED);
            assert_eq!(focused, json!(format!("#{stop} 2px")));
        }
        tab.evaluate("document.getElementById('skip').focus()");
        tab.press("Enter", 13, "\r");
        assert_eq!(tab.evaluate("document.activeElement.id"), json!("main"));
        tab.evaluate("document.querySelector('#d-errors summary').focus()");
        tab.press(" ", 32, " ");
        assert_eq!(tab.evaluate("document.getElementById('d-errors').open"), json!(false));
        tab.evaluate("document.getElementById('theme').focus()");
        tab.press("Enter", 13, "\r");
        assert_eq!(tab.evaluate("document.documentElement.dataset.theme"), json!("light"));
    });
}

/// Each problem that makes `status` and `/healthz` say that not all is well is in the verdict of the page, too.
#[test]
fn the_page_finds_nothing_well_that_status_does_not() {
    let Some(browser) = browser() else { return };
    let fake = Fake::new(well());
    let page = page(fake.reader());
    let mut tab = Tab::open(browser, page.address(), DESK);
    let level = "['ok', 'warn', 'bad'].findIndex(name => document.getElementById('verdict').classList.contains(name))";
    let problems: [fn(&mut Snapshot); 9] = [
        |_| {},
        |of| of.instance.unwatched = 3,
        |of| of.instance.journal_incomplete = true,
        |of| of.roots[0].state = RootState::Lost,
        |of| of.roots[0].deletions = DeletionState::Withheld,
        |of| of.remotes[0].state = SyncState::Down,
        |of| of.remotes[0].state = SyncState::Paused,
        |of| of.remotes[0].refuses_deletions = true,
        |of| of.remotes[0].failing = 1,
    ];
    for (index, problem) in problems.into_iter().enumerate() {
        let mut snapshot = well();
        problem(&mut snapshot);
        snapshot.instance.pid = 1_000 + index as u32;
        let health = snapshot.health(&HealthThresholds::default(), snapshot.taken_ms);
        fake.change(snapshot);
        let is_drawn = format!(
            "document.getElementById('about').textContent.includes('process {}')",
            1_000 + index
        );
        wait_until("the page shows it", || tab.evaluate(&is_drawn) == json!(true));
        assert_eq!(tab.evaluate(level), json!(health.level as u8), "{:?}", health.reasons);
    }
}

#[test]
fn what_is_read_aloud_and_what_is_selected_is_not_replaced_every_second() {
    let Some(browser) = browser() else { return };
    let fake = Fake::new(troubled());
    let page = page(fake.reader());
    let mut tab = Tab::open(browser, page.address(), DESK);
    tab.evaluate("getSelection().selectAllChildren(document.querySelector('.note.bad .do'))");
    tab.evaluate("window.spoken = 0; new MutationObserver(() => spoken++).observe(document.getElementById('announced'), { childList: true })");
    let mut later = troubled();
    later.remotes[1].down.as_mut().unwrap().since_ms -= 120_000;
    later.instance.pid = 77;
    fake.change(later);
    let is_drawn = "document.getElementById('about').textContent.includes('process 77')";
    wait_until("the page shows it", || tab.evaluate(is_drawn) == json!(true));
    assert_eq!(tab.evaluate("spoken"), json!(0));
    let selected = tab.evaluate("getSelection().toString()");
    assert!(selected.as_str().unwrap().starts_with("What to do: nobody listens"), "{selected}");
    tab.evaluate("getSelection().removeAllRanges()");
    let note = "document.querySelector('.note.bad small').textContent.includes('21 min')";
    wait_until("it is up to date again", || tab.evaluate(note) == json!(true));
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
        ("phone-crowd-zh-dark", crowd(), zh(dark(tall(PHONE, 2600)))),
    ] {
        picture(browser, &snapshot, view, &file(name));
    }
    std::fs::write(dir.join("troubled.json"), serde_json::to_vec(&troubled()).unwrap()).unwrap();
    std::fs::write(dir.join("crowd.json"), serde_json::to_vec(&crowd()).unwrap()).unwrap();
    let images = root.join("docs/images");
    std::fs::create_dir_all(&images).unwrap();
    picture(browser, &troubled(), tall(DESK, 1188), &images.join("page.png"));
    picture(browser, &troubled(), zh(tall(DESK, 1188)), &images.join("page.zh-CN.png"));
}
