//! What a person with a browser meets, at the width of a desk and of a phone, by day and by night.

use serde_json::json;
use smtp_pool::testing::{Action, Script, Stage, TestServer};

use crate::browser::Browser;
use crate::common::eventually;
use crate::program::Program;

/// What is wrong with the page that is shown, as far as a program can see it.
const COMPLAINTS: &str = r#"(() => {
    const complaints = [];
    const say = (what, it) => complaints.push(what + (it ? ": " + it.outerHTML.slice(0, 120) : ""));
    const seen = (it) => it.offsetParent !== null && !it.closest(".unseen");
    if (document.documentElement.scrollWidth > innerWidth) say("scrolls sideways by " + (document.documentElement.scrollWidth - innerWidth));
    for (const it of document.querySelectorAll("body *")) {
        const box = it.getBoundingClientRect();
        if (seen(it) && !it.closest("pre") && (box.left < -0.5 || box.right > innerWidth + 0.5)) say("sticks out", it);
    }
    if (!document.documentElement.lang || !document.title) say("no language or title");
    if (document.querySelectorAll("h1").length !== 1) say("not one h1");
    if (!document.querySelector("main") || !document.querySelector("nav[aria-label]")) say("no landmarks");
    for (const it of document.querySelectorAll("input:not([type=hidden]), textarea")) {
        if (it.labels.length !== 1 || !it.labels[0].textContent.trim()) say("no label", it);
        if (parseFloat(getComputedStyle(it).fontSize) < 16) say("a phone would zoom in", it);
    }
    for (const it of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
        const id = it.getAttribute("aria-describedby") || it.getAttribute("aria-labelledby");
        if (!document.getElementById(id)) say("described by nothing", it);
    }
    for (const it of document.querySelectorAll("button, .button, input:not([type=hidden]), nav a")) {
        if (it.getBoundingClientRect().height < 43.5) say("too small for a finger", it);
    }
    for (const entry of performance.getEntriesByType("resource")) {
        if (!entry.name.startsWith(location.origin + "/")) say("from elsewhere: " + entry.name);
    }
    // WCAG 2.2 §1.4.3: the contrast of text is 4.5 at least.
    const parts = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = parts(color).map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (it) => {
        for (; it; it = it.parentElement) {
            const color = getComputedStyle(it).backgroundColor;
            const alpha = parts(color)[3];
            if (alpha === undefined || alpha === 1) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const it = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !seen(it)) continue;
        const [text, page] = [light(getComputedStyle(it).color), light(behind(it))];
        const contrast = (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
        if (contrast < 4.5) say("contrast " + contrast.toFixed(2), it);
    }
    return complaints;
})()"#;

/// Checks the page by day and by night, and leaves it as it was.
fn is_pleasant(browser: &mut Browser, (width, height): (u32, u32), name: &str) {
    for (is_dark, scheme) in [(true, "dark"), (false, "light")] {
        browser.view(width, height, is_dark);
        let complaints = browser.eval(COMPLAINTS);
        assert_eq!(complaints, json!([]), "{name} at {width}, {scheme}");
        let page = browser.text("getComputedStyle(document.body).backgroundColor");
        let first: u8 = page.split(['(', ',']).nth(1).unwrap().trim().parse().unwrap();
        assert_eq!(first < 128, is_dark, "{page} is not {scheme}");
        browser.shoot(&format!("{width}-{name}-{scheme}"));
    }
    assert_eq!(browser.errors(), Vec::<String>::new(), "{name} at {width}");
}

fn writes(browser: &mut Browser, to: &str) {
    browser.types("to", to);
    browser.types("text", "How are you?\nI am fine.");
    browser.types("subject", "Grüße & <b>hello</b>");
}

const MARKED: &str = "[...document.querySelectorAll('[aria-pressed=true]')].map((it) => it.textContent).join()";
const HEADLINE: &str = "document.querySelector('h1').textContent";

/// One test, because a browser takes longer to start than all of them to run.
#[test]
#[ignore = "needs a browser: apt-get install --no-install-recommends chromium"]
fn a_real_browser_shows_each_outcome_and_sends_nothing_twice() {
    let mut browser = Browser::start();
    a_person_sees_what_became_of_the_mail_at_a_desk_and_on_a_phone(&mut browser);
    the_status_page_goes_on_by_itself_until_it_is_paused(&mut browser);
    who_goes_back_in_the_browser_finds_the_outcome_and_no_button(&mut browser);
    a_browser_on_the_page_of_another_site_is_turned_away(&mut browser);
}

fn a_person_sees_what_became_of_the_mail_at_a_desk_and_on_a_phone(browser: &mut Browser) {
    for size in [(1280, 900), (390, 844)] {
        let program = Program::start(None);
        browser.view(size.0, size.1, false);
        browser.goto(&program.url("/"));
        is_pleasant(browser, size, "form");
        assert_eq!(browser.text(MARKED), "works");

        // With the keyboard alone.
        writes(browser, "to1@example.net");
        browser.enters();
        assert_eq!((browser.status(), &*browser.text(HEADLINE)), (202, "On its way"));
        is_pleasant(browser, size, "accepted");

        let moods = [
            ("refuses", "refuses everybody", 502, "Refused", "permanent_failure"),
            ("later", "says “later”", 503, "Not sent", "retryable_temporary_failure"),
            ("hangs_up", "hangs up behind the last byte", 504, "Perhaps sent, perhaps not", "unknown_after_data"),
            ("down", "is down", 503, "Not sent", "host_unavailable"),
        ];
        for (mood, text, status, headline, kind) in moods {
            browser.follows(&format!("button[value={mood}]"));
            assert_eq!(browser.text(MARKED), text);
            writes(browser, "to1@example.net");
            browser.follows("button.send");
            assert_eq!((browser.status(), &*browser.text(HEADLINE)), (status, headline));
            assert_eq!(browser.text("document.querySelector('dd code').textContent"), kind);
            let typed = browser.eval("document.getElementById('subject')?.value ?? null");
            let kept = if status == 504 { json!(null) } else { json!("Grüße & <b>hello</b>") };
            assert_eq!(typed, kept, "what was typed is there still, unless it must not be sent again");
            is_pleasant(browser, size, kind);
        }

        // A mistake that the browser itself does not see.
        browser.goto(&program.url("/"));
        writes(browser, "nobody@-");
        browser.eval("document.querySelector('form.mail').noValidate = true");
        browser.follows("button.send");
        assert_eq!((browser.status(), &*browser.text(HEADLINE)), (422, "Please look again"));
        is_pleasant(browser, size, "mistake");

        browser.follows("nav a[href='/status']");
        assert!(browser.text("document.querySelector('.hosts').textContent").contains("cooling down"));
        let mails = browser.eval("document.querySelectorAll('.recent li').length");
        assert_eq!(mails, json!(5));
        is_pleasant(browser, size, "status");
        browser.follows(".recent a");
        assert!(browser.text("document.querySelector('pre').textContent").contains("gave up"));
        is_pleasant(browser, size, "trace");
    }
}

fn the_status_page_goes_on_by_itself_until_it_is_paused(browser: &mut Browser) {
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    const MAILS: &str = "document.querySelectorAll('.recent li').length";
    let send = || assert_eq!(program.post(&[("to", "to1@example.net"), ("text", "x")]).status, 202);
    browser.goto(&program.url("/status"));
    assert_eq!(browser.eval(MAILS), json!(0));
    send();
    eventually("the page shows it by itself", || browser.eval(MAILS) == json!(1));
    // What the page's timer calls, called here, so that nothing has to be waited for.
    browser.clicks("button.pause");
    assert_eq!(browser.text(MARKED), "Paused");
    send();
    browser.eval("refresh()");
    assert_eq!(browser.eval(MAILS), json!(1));
    browser.clicks("button.pause");
    browser.eval("document.activeElement.blur(); refresh()");
    assert_eq!(browser.eval(MAILS), json!(2));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

fn who_goes_back_in_the_browser_finds_the_outcome_and_no_button(browser: &mut Browser) {
    let server =
        TestServer::builder().script(Script::new().once(Stage::EndOfData, [Action::Accept, Action::Reset])).start();
    let program = Program::start(Some(&server));
    browser.goto(&program.url("/"));
    writes(browser, "to1@example.net");
    browser.follows("button.send");
    assert_eq!(browser.status(), 504);
    let number = browser.text("document.querySelectorAll('dd code')[1].textContent");
    browser.go_back();
    // Chromium fills in what was typed and fetches the page anew: a form with a fresh ticket would send a second copy.
    assert_eq!(browser.text(HEADLINE), "Perhaps sent, perhaps not");
    assert_eq!(browser.text("document.querySelectorAll('dd code')[1].textContent"), number);
    assert_eq!(browser.eval("document.querySelectorAll('form').length"), json!(0));
    assert_eq!((server.messages().len(), server.accepted(&number)), (1, 1));
}

fn a_browser_on_the_page_of_another_site_is_turned_away(browser: &mut Browser) {
    let server = TestServer::start();
    let program = Program::start(Some(&server));
    // Another origin: no port of this program, and in fact none at all.
    let form = format!(
        "data:text/html,<form method=post action={}><input name=to value=to1@example.net><input name=text value=x><button>go</button></form>",
        program.url("/")
    );
    browser.goto(&form);
    browser.follows("button");
    assert_eq!(browser.status(), 403);
    assert!(server.messages().is_empty());
}
