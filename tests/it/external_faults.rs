//! Other providers that answer badly, late or not at all: what a publish says, and what is left.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use keyvault_csi_e2e::driver::wait_for;
use keyvault_csi_e2e::kubelet::is_final;
use tonic::Code;

use crate::external_fixture::{NAME, PATIENCE, both, class, driver, options, provider, set, volume, with_tokens};
use crate::harness::{Node, harness};

trials! { "external_faults":
    what_a_bad_reply_is_told_as,
    bad_paths_are_refused_and_nothing_is_left,
    ten_kilobytes_and_five_megabytes,
    a_reply_above_a_small_limit_says_which_flag_to_raise,
    a_provider_that_hangs_ends_with_the_deadline,
    a_socket_on_which_nobody_accepts_is_waited_for,
    unavailable_is_tried_three_times,
    a_provider_that_is_killed_and_restarted_during_two_hundred_publishes,
    what_was_sent_in_confidence_is_in_no_log_error_or_metric,
    no_form_of_a_secret_passes,
}

/// Publishes a volume of a class that wants this answer; it must fail, and say all of this.
fn fails(node: &Node, of: &[&str], answer: &str, words: &[&str]) -> Result<()> {
    class(node, "faulty", of, answer)?;
    let status = node.refused_within(&volume("faulty"), Duration::from_secs(20))?;
    assert_eq!(status.code(), Code::Unknown, "{status}");
    for word in ["default/faulty", &format!("provider {NAME}")].iter().chain(words) {
        ensure!(status.message().contains(word), "{answer}: {word:?} is missing in: {status}");
    }
    Ok(())
}

fn counted(node: &Node, error_type: &str, reason: &str) -> Result<()> {
    let metrics = node.metrics()?;
    let line = format!("provider=\"{NAME}\",error_type=\"{error_type}\",reason=\"{reason}\"");
    ensure!(metrics.contains(&line), "{line} is missing in {metrics}");
    Ok(())
}

fn what_a_bad_reply_is_told_as() -> Result<()> {
    let (node, _provider) = both(&[])?;
    let good = &["objectName: foo"][..];
    fails(&node, good, "code=AuthenticationFailed", &["provider error code AuthenticationFailed", "(ProviderFailed)"])?;
    counted(&node, "AuthenticationFailed", "ProviderFailed")?;
    fails(&node, good, "code=a \"bad\" label", &["a \"bad\" label"])?;
    counted(&node, "other", "ProviderFailed")?;
    fails(&node, good, "status=7:who are you", &["code = PermissionDenied desc = who are you", "(ProviderFailed)"])?;
    counted(&node, "GRPCProviderError", "ProviderFailed")?;
    // Long texts are headers that many clients refuse.
    fails(&node, good, &format!("status=7:{}", "x".repeat(20_000)), &["code = PermissionDenied desc = xxxx"])?;
    // Codes that mean something else to the kubelet stay inside (docs/decisions.md#d8).
    for code in [1, 4, 8, 10] {
        fails(&node, good, &format!("status={code}:no"), &["desc = no"])?;
    }
    fails(&node, good, "versionless", &["no object versions", "(ProviderFailed)"])?;
    fails(&node, good, "fileless", &["no files", "write into the volume themselves are not supported"])?;
    fails(&node, &["objectName: absent"], "", &["secret absent not found"])?;
    Ok(())
}

fn bad_paths_are_refused_and_nothing_is_left() -> Result<()> {
    let (node, _provider) = both(&[])?;
    let long = format!("objectName: foo, path: {}", "x".repeat(256));
    for (object, words) in [
        ("objectName: foo, path: /dev/null", "relative to the mount"),
        ("objectName: foo, path: ../../../../etc/passwd", "must not contain '..'"),
        ("objectName: foo, path: hello/../../etc/x", "must not contain '..'"),
        ("objectName: foo, path: ..sneaky.txt", "must not start with '..'"),
        ("objectName: foo, path: a//b", "shortest form"),
        ("objectName: foo, path: .", "shortest form"),
        ("objectName: foo, path: \"\"", "empty"),
        (&long, "256 bytes"),
    ] {
        fails(
            &node,
            &["objectName: fookey", object],
            "",
            &["the reply has the path", words, "(ProviderReplyInvalid)"],
        )?;
    }
    fails(&node, &["objectName: foo", "objectName: foo, path: foo/bar"], "", &["is a file and, because of"])?;
    fails(&node, &["objectName: foo, mode: -1"], "", &["the mode -1"])?;
    counted(&node, "FileWriteError", "ProviderReplyInvalid")
}

const LARGE: &str = "objectName: foo, size: 5000000";

fn ten_kilobytes_and_five_megabytes() -> Result<()> {
    let (node, _provider) = both(&[])?;
    class(&node, "small", &["objectName: foo, size: 10240"], "")?;
    assert_eq!(fs::metadata(node.publish(&volume("small"))?.join("foo"))?.len(), 10_240);
    fails(&node, &[LARGE], "", &["larger than 4194304 bytes", "--max-call-recv-msg-size", "(TooLarge)"])?;
    let (node, provider) =
        both(&["--max-call-recv-msg-size=8388608", "--enable-secret-rotation", "--rotation-poll-interval=200ms"])?;
    class(&node, "large", &[LARGE], "")?;
    let target = node.publish(&volume("large"))?;
    let content = fs::read(target.join("foo"))?;
    ensure!(content.len() == 5_000_000 && content.starts_with(b"secretsecret"), "{}", content.len());
    // A refresh holds both generations for a moment.
    provider.control("/rotation", &[("rotated", "true")])?;
    wait_for("it is refreshed", PATIENCE, || Ok(fs::read(target.join("foo"))?.starts_with(b"rotatedrotated")))
}

fn a_reply_above_a_small_limit_says_which_flag_to_raise() -> Result<()> {
    let (node, _provider) = both(&["--max-call-recv-msg-size=5"])?;
    fails(&node, &["objectName: foo"], "", &["larger than 5 bytes", "maxCallRecvMsgSize"])
}

fn a_provider_that_hangs_ends_with_the_deadline() -> Result<()> {
    let (node, provider) = both(&[])?;
    class(&node, "demo", &["objectName: foo"], "hang")?;
    let began = Instant::now();
    let status = node.refused_within(&volume("demo"), Duration::from_secs(4))?;
    let took = began.elapsed();
    // Ours is a tenth shorter than the caller's, so that the cause arrives.
    ensure!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(status.code(), Code::Unknown, "{status}");
    ensure!(status.message().contains("no answer within 3 s") && status.message().contains("(Timeout)"), "{status}");
    // Other volumes are not held up meanwhile.
    class(&node, "fine", &["objectName: foo"], "")?;
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| node.refused_within(&volume("demo"), Duration::from_secs(4)));
        wait_for("it hangs", Duration::from_secs(4), || Ok(provider.requests()?.len() == 2))?;
        node.publish(&volume("fine"))?;
        ensure!(!hanging.is_finished());
        hanging.join().map_err(|_| anyhow::anyhow!("it panicked"))?.map(drop)
    })
}

fn a_socket_on_which_nobody_accepts_is_waited_for() -> Result<()> {
    let node = driver(&[])?;
    let options = options(node.setup(), 1, 8080)?;
    class(&node, "demo", &["objectName: foo"], "")?;
    // As a provider leaves it that was killed.
    drop(std::os::unix::net::UnixListener::bind(&options.socket)?);
    let status = node.refused_within(&volume("demo"), Duration::from_secs(3))?;
    for word in ["nobody answers on", &options.socket.display().to_string(), "refused", "(ProviderUnavailable)"] {
        ensure!(status.message().contains(word), "{word:?} is missing in: {status}");
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| node.publish_within(&volume("demo"), Duration::from_secs(30)));
        let known = || Ok(node.log().matches("node publish volume").count() >= 2);
        wait_for("it waits", Duration::from_secs(10), known)?;
        let _provider = provider(&options)?;
        waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        Ok(())
    })
}

fn unavailable_is_tried_three_times() -> Result<()> {
    let (node, provider) = both(&[])?;
    class(&node, "demo", &["objectName: foo"], "unavailable=2")?;
    node.publish(&volume("demo"))?;
    assert_eq!(provider.requests()?.len(), 3);
    fails(&node, &["objectName: foo"], "unavailable=9", &["code = Unavailable desc = not yet"])?;
    assert_eq!(provider.requests()?.len(), 6);
    Ok(())
}

/// Each pod is called for again as long as the kubelet would, and none waits longer than a publish may.
fn a_provider_that_is_killed_and_restarted_during_two_hundred_publishes() -> Result<()> {
    const PODS: usize = 200;
    const DEADLINE: Duration = Duration::from_secs(30);
    let node = driver(&[])?;
    let options = options(node.setup(), 1, 8080)?;
    class(&node, "demo", &["objectName: foo"], "delay=50")?;
    let mut running = Some(provider(&options)?);
    let (next, done, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let publish_all = || -> Result<usize> {
        let mut again = 0;
        while next.fetch_add(1, Ordering::Relaxed) < PODS {
            let volume = volume("demo");
            for tries in 1.. {
                let began = Instant::now();
                let outcome = node.publish_within(&volume, DEADLINE);
                ensure!(began.elapsed() <= DEADLINE, "a publish took {:?}", began.elapsed());
                match outcome {
                    Ok(target) => {
                        assert_eq!(fs::read_to_string(target.join("foo"))?, "secret");
                        break;
                    }
                    Err(status) => {
                        ensure!(tries < 10, "a pod does not start: {status}");
                        ensure!(is_final(status.code()) || status.code() == Code::Aborted, "{status}");
                        again += 1;
                    }
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(again)
    };
    let (again, kills) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(publish_all)).collect();
        let mut kills = 0;
        while !over.load(Ordering::Relaxed) {
            let at = done.load(Ordering::Relaxed);
            let more =
                || Ok(done.load(Ordering::Relaxed) >= (at + 20).min(PODS) || workers.iter().all(|w| w.is_finished()));
            wait_for("publishes go on", Duration::from_secs(120), more)?;
            if done.load(Ordering::Relaxed) >= PODS || workers.iter().all(|worker| worker.is_finished()) {
                over.store(true, Ordering::Relaxed);
                continue;
            }
            let provider = running.take().context("no provider")?;
            // In turn as a crash and as an update.
            if kills % 2 == 0 {
                provider.kill()?
            } else {
                provider.terminate()?
            }
            kills += 1;
            running = Some(self::provider(&options)?);
        }
        let mut again = 0;
        for worker in workers {
            again += worker.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        }
        Ok::<_, anyhow::Error>((again, kills))
    })?;
    ensure!(kills >= 5, "killed {kills} times only");
    ensure!(done.load(Ordering::Relaxed) == PODS);
    ensure!(again <= PODS / 4, "{again} publishes failed in {kills} restarts");
    Ok(())
}

fn what_was_sent_in_confidence_is_in_no_log_error_or_metric() -> Result<()> {
    let (node, provider) = both(&[
        "--provider-health-check",
        "--provider-health-check-interval=100ms",
        "--enable-secret-rotation",
        "--rotation-poll-interval=200ms",
    ])?;
    let value = set(&provider, "password", "v1")?;
    class(&node, "demo", &["objectName: password"], "")?;
    let (secret, audience) = (harness().secret("principal"), "api://audience");
    let volume = with_tokens(
        volume("demo").with_service_principal("00000000-0000-4000-9000-000000000000", &secret),
        &[audience],
    );
    let token = volume.attributes[crate::external_fixture::TOKENS].clone();
    let token: serde_json::Value = serde_json::from_str(&token)?;
    let token = token[audience]["token"].as_str().context("no token")?;
    node.publish(&volume)?;
    provider.control("/answer", &[("answer", "quote")])?;
    let failures = || crate::rotation::metric(&node, "rotation_reconcile_error_total{", &["ProviderFailed"]);
    wait_for("refreshes fail with it", PATIENCE, || Ok(failures()? >= 1.0))?;
    let mut other = volume.clone();
    other.uid = "00000000-0000-4000-8000-00000000abcd".to_owned();
    let status = node.refused(&other)?;
    ensure!(status.message().contains("cannot serve") && status.message().contains("***stripped***"), "{status}");
    for rest in ["clientsecret", "secretProviderClass", "objectName: password"] {
        ensure!(status.message().contains(rest), "{rest} is missing in: {status}");
    }
    provider.control("/answer", &[("answer", &format!("code={secret}"))])?;
    let coded = node.refused(&other)?;
    ensure!(coded.message().contains("provider error code ***stripped***"), "{coded}");
    for text in [status.message(), coded.message(), &node.log(), &node.metrics()?] {
        for hidden in [value.as_str(), &secret, token] {
            ensure!(!text.contains(hidden), "{hidden:.12} in {text}");
        }
    }
    Ok(())
}

/// A provider may print what it got in any form, whole or in pieces, as an error's text, as its code, or as a path.
fn no_form_of_a_secret_passes() -> Result<()> {
    const RUN: usize = 16;
    let (node, provider) = both(&[])?;
    class(&node, "demo", &["objectName: foo"], "")?;
    let secret = harness().secret("with/some+signs & a \"quote\"");
    let volume = volume("demo").with_service_principal("00000000-0000-4000-9000-000000000000", &secret);
    let text = |before: &str| format!("{before}{secret}");
    let base64 = ["", "x", "xy"].map(|before| BASE64_STANDARD.encode(text(before))[4..].to_owned());
    let for_urls = ["", "x", "xy"].map(|before| BASE64_URL_SAFE_NO_PAD.encode(text(before))[4..].to_owned());
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let others = [secret.clone(), hex::encode(&secret), percent, serde_json::Value::from(secret.as_str()).to_string()];
    for form in base64.into_iter().chain(for_urls).chain(others) {
        let pieces: Vec<&str> = (0..=form.len() - RUN).map(|at| &form[at..at + RUN]).collect();
        let in_pieces = pieces.join(" | ");
        let answers = [
            format!("status=7:cannot log in with {form} for long"),
            format!("status=7:cannot log in with {in_pieces} for long"),
            format!("code={form}"),
        ];
        for answer in answers {
            provider.control("/answer", &[("answer", &answer)])?;
            let status = node.refused(&volume)?;
            ensure!(status.message().contains("***stripped***"), "{status}");
            ensure!(answer.starts_with("code") || status.message().contains("cannot log in with "), "{status}");
            for sink in [status.message(), &node.metrics()?] {
                let shown = pieces.iter().find(|piece| sink.contains(**piece));
                ensure!(shown.is_none(), "{shown:?} of {form} in {sink}");
            }
        }
        let log = node.log();
        let shown = pieces.iter().find(|piece| log.contains(**piece));
        ensure!(shown.is_none(), "{shown:?} of {form} in the log");
    }
    Ok(())
}
