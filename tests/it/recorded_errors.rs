//! Challenges and errors as Azure really sends them, and hostile challenges: the real driver
//! answers them, or its error names the cause.

use anyhow::{Context as _, Result, ensure};

use crate::recorded_azure::{Answer, LOGIN, Request, STACK, VAULT, vault};
use crate::recorded_fixture::{CLIENT_ID, Fixture, TENANT, normal, pod, pod_of_application, secret, with_driver};

trials! { "recorded_errors":
    challenges_of_each_shape_lead_to_the_vaults_token,
    a_challenge_without_a_bearer_token_is_named,
    a_claims_challenge_is_named,
    azure_stacks_resource_on_another_host_is_named,
    errors_of_the_vault_name_the_fix,
    errors_of_the_token_services_name_the_fix,
    hostile_challenges_get_no_token_and_a_short_error,
}

/// Answers requests without a token for a vault by this, and everything else as usual.
fn challenge(answer: Answer) -> impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static {
    move |request| match request.method == "GET" && request.authorization.is_none() {
        true => Some(answer.clone()),
        false => normal(request),
    }
}

/// Answers requests with a token by this, and everything else as usual.
fn refusal(answer: Answer) -> impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static {
    move |request| match request.authorization.is_some() {
        true => Some(answer.clone()),
        false => normal(request),
    }
}

fn same(found: &str, wanted: &str) -> Result<()> {
    ensure!(found == wanted, "found:  {found}\nwanted: {wanted}");
    Ok(())
}

fn with_challenge(header: &str) -> Answer {
    Answer::vault("challenge").with_header("WWW-Authenticate", header)
}

fn challenges_of_each_shape_lead_to_the_vaults_token() -> Result<()> {
    let resource = r#"resource="https://vault.azure.net""#;
    let mut two_headers = Answer::vault("challenge");
    two_headers.headers.insert(0, ("WWW-Authenticate".to_owned(), r#"PoP nonce="q1w2", realm="a, Bearer""#.to_owned()));
    let answers = [
        Answer::vault("challenge"),
        Answer::vault("challenge-of-2022"),
        Answer::vault("challenge-pop-bearer"),
        two_headers,
        with_challenge(&format!(r#"Bearer authorization="https://{LOGIN}/t", {resource}, PoP resource="https://pop""#)),
        with_challenge(&format!(r#"bearer AUTHORIZATION="https://{LOGIN}/t",RESOURCE="https://vault.azure.net""#)),
        with_challenge(&format!("Negotiate, NTLM TlRMTVNTUAAC/+==, Bearer {resource}")),
        with_challenge(&format!(r#"Bearer authorization="https://{LOGIN}/t" {resource}"#)),
        with_challenge(r#"Bearer scope="https://vault.azure.net/.default""#),
    ];
    with_driver(&[], |fixture| {
        for (number, answer) in answers.into_iter().enumerate() {
            let (name, shown) = (vault(number), format!("{:?}", answer.headers.last()));
            fixture.azure.answer(challenge(answer));
            fixture.class(&name, &[], &secret("pem"))?;
            let target = fixture.publish(&pod_of_application()).with_context(|| shown.clone())?;
            ensure!(target.join("pem").exists());
            let tokens: Vec<Request> =
                fixture.azure.seen().into_iter().filter(|request| request.method == "POST").collect();
            // All have the same scope, so that the first one's token serves for all.
            ensure!(tokens.len() == usize::from(number == 0), "{shown}: {} token requests", tokens.len());
            ensure!(tokens.iter().all(|token| token.body.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default")));
        }
        Ok(())
    })
}

fn a_challenge_without_a_bearer_token_is_named() -> Result<()> {
    with_driver(&[], |fixture| {
        let unexpected = |number: usize, fault: &str| {
            format!(
                "{}.vault.azure.net did not answer as Key Vault does: {fault}; check the vault's name, the cloud, and \
                 any proxy in between (VaultUnavailable)",
                vault(number)
            )
        };
        for (number, answer, fault) in [
            (
                0,
                Answer::vault("challenge-pop-only"),
                "it asks for a proof-of-possession (PoP) token, and accepts no Bearer token",
            ),
            (1, with_challenge(r#"Basic realm="proxy""#), "it asks for another login than a Bearer token"),
            (2, with_challenge("Bearer"), "it does not say which token it requires"),
            (3, with_challenge(r#"Bearer resource="#), "it does not say which token it requires"),
            (4, with_challenge(r#"Bearer resource="https"#), "its WWW-Authenticate header is malformed"),
        ] {
            fixture.azure.answer(challenge(answer));
            fixture.class(&vault(number), &[], &secret("pem"))?;
            same(&fixture.cause(&pod_of_application())?, &unexpected(number, fault))?;
            ensure!(fixture.azure.lines().len() == 1, "{:?}", fixture.azure.lines());
        }
        Ok(())
    })
}

/// The driver replaces the token once, as a revoked one needs; then the policy is the cause.
fn a_claims_challenge_is_named() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(refusal(Answer::vault("claims-challenge")));
        fixture.class(VAULT, &[], &secret("pem"))?;
        same(
            &fixture.cause(&pod_of_application())?,
            &format!(
                "{VAULT}.vault.azure.net answered HTTP 401 Unauthorized (request id \
                 0e8d6c52-7a4b-4d7e-9a39-4f1c2b7d8e10): Conditional Access or continuous access evaluation of the \
                 tenant requires claims that the token lacks (nbf, xms_rp_ipaddr); let client id {CLIENT_ID} in from \
                 the node's address in the policy for workload identities, or exclude it; the service principal's \
                 sign-in logs in Entra ID name the policy (Unauthorized)"
            ),
        )?;
        let (get, token) =
            (format!("GET {VAULT}.vault.azure.net/secrets/pem/"), format!("POST {LOGIN}/{TENANT}/oauth2/v2.0/token"));
        let round = [get.clone(), token, format!("{get} with token")];
        ensure!(fixture.azure.lines() == [&round[..], &round].concat(), "{:?}", fixture.azure.lines());
        // The policy lets the application in: the next publish gets the value.
        fixture.azure.answer(normal);
        fixture.publish(&pod_of_application()).map(drop)
    })
}

fn azure_stacks_resource_on_another_host_is_named() -> Result<()> {
    with_driver(&[], |fixture| {
        for (answer, login, tenant, resource) in [
            ("challenge-stack-adfs", format!("{}/adfs", STACK.0), "adfs", "vault.adfs.rack.contoso.example"),
            ("challenge-stack-entra", LOGIN.to_owned(), TENANT, "vault.contosostack.onmicrosoft.com"),
        ] {
            fixture.azure.answer(challenge(Answer::vault(answer)));
            fixture.stack_class(&login, &format!("https://{}/", STACK.1), tenant)?;
            same(
                &fixture.cause(&pod_of_application())?,
                &format!(
                    "{} asks for a token of {resource}, and got none: the cloud's file allows {} and parent domains of \
                     the vault; if {resource} is the Key Vault resource of this cloud, as its operator can confirm, \
                     set keyVaultEndpoint of the cloud's file to https://{resource}/ (VaultUnavailable)",
                    STACK.2, STACK.1
                ),
            )?;
            ensure!(fixture.azure.lines() == [format!("GET {}/secrets/pem/", STACK.2)], "a token was requested");
            // The value that the text names works.
            fixture.stack_class(&login, &format!("https://{resource}/"), tenant)?;
            fixture.publish(&pod_of_application())?;
        }
        Ok(())
    })
}

fn errors_of_the_vault_name_the_fix() -> Result<()> {
    with_driver(&[], |fixture| {
        let id = "(request id 0e8d6c52-7a4b-4d7e-9a39-4f1c2b7d8e10)";
        for (number, name, wanted) in [
            (
                0,
                "disabled",
                format!(
                    "answered HTTP 403 Forbidden/SecretDisabled {id}: the secret or this version is disabled; enable \
                     it in the vault (ObjectDisabled)"
                ),
            ),
            (
                1,
                "firewall",
                format!(
                    "answered HTTP 403 Forbidden/ForbiddenByFirewall {id}: the vault's network rules refuse the node's \
                     address; allow it, or use a private endpoint (Forbidden)"
                ),
            ),
            (
                2,
                "no-role",
                format!(
                    "answered HTTP 403 Forbidden/ForbiddenByRbac {id}: grant client id {CLIENT_ID} the role \"Key \
                     Vault Secrets User\" on the vault; a new grant takes some minutes (Forbidden)"
                ),
            ),
        ] {
            fixture.azure.answer(refusal(Answer::vault(name)));
            fixture.class(&vault(number), &[], &secret("pem"))?;
            same(&fixture.cause(&pod_of_application())?, &format!("{}.vault.azure.net {wanted}", vault(number)))?;
        }
        // Without Retry-After the driver tries again with delays of its own, until the deadline.
        fixture.azure.answer(refusal(Answer::vault("throttled")));
        fixture.class(&vault(3), &[], &secret("pem"))?;
        let cause = fixture.cause(&pod_of_application())?;
        let wanted = format!(
            "{}.vault.azure.net answered HTTP 429 Throttled {id}: too many requests; lengthen rotationPollInterval or \
             spread the load over more vaults (Throttled)",
            vault(3)
        );
        ensure!(cause.ends_with(&wanted), "{cause}");
        let tries = fixture.azure.seen().iter().filter(|request| request.authorization.is_some()).count();
        ensure!(tries > 1, "it was tried once");
        Ok(())
    })
}

fn errors_of_the_token_services_name_the_fix() -> Result<()> {
    with_driver(&[], |fixture| {
        fixture.azure.answer(|request| match request.method.as_str() {
            "POST" => Some(Answer::recorded("wrong-secret")),
            _ => normal(request),
        });
        fixture.class(VAULT, &[], &secret("pem"))?;
        same(
            &fixture.cause(&pod_of_application())?,
            &format!(
                "{LOGIN} answered HTTP 401 AADSTS7000215 (request id 9d2c1b0a-8f7e-4d6c-a5b4-3c2d1e0f9a8b): the client \
                 secret is wrong; put the secret's value, not its id, in clientsecret (CredentialsRejected)"
            ),
        )?;
        for (name, wanted) in [
            (
                "no-such-identity",
                "HTTP 400: the node has no such identity, or has several and the class names none; assign it to the \
                 node's VM scale set, and check userAssignedIdentityID",
            ),
            (
                "metadata-of-aws",
                "HTTP 401: the metadata service refuses the node; check that the node is an Azure VM, network policies \
                 and metadata restrictions",
            ),
        ] {
            fixture.azure.answer(move |request| match request.path.starts_with("/metadata/") {
                true => Some(Answer::recorded(name)),
                false => normal(request),
            });
            let more = [("useVMManagedIdentity", "true"), ("userAssignedIdentityID", CLIENT_ID)];
            fixture.class(VAULT, &more, &secret("pem"))?;
            same(&fixture.cause(&pod())?, &format!("169.254.169.254 answered {wanted} (CredentialsRejected)"))?;
        }
        Ok(())
    })
}

/// Challenges that a false vault could send to get a token for another service, or to fill memory,
/// logs and events.
fn hostile_headers() -> Vec<(String, &'static str)> {
    let resource = |resource: &str| format!(r#"Bearer authorization="https://{LOGIN}/t", resource="{resource}""#);
    let many = (0..2_000).map(|number| format!("p{number}=v")).collect::<Vec<_>>().join(",");
    let plain = "asks for a token of a resource that is not a plain https address, and got none";
    let large = "its WWW-Authenticate header is too large";
    vec![
        (resource("https://graph.microsoft.com"), "asks for a token of graph.microsoft.com, and got none"),
        (resource("https://other.vault.azure.net"), "asks for a token of other.vault.azure.net, and got none"),
        (resource("https://vault.azure.net.evil.example"), "token of vault.azure.net.evil.example, and got none"),
        (resource("https://evil-vault.azure.net"), "asks for a token of evil-vault.azure.net, and got none"),
        (resource("https://net"), "asks for a token of net, and got none"),
        (resource("https://vault.azure.net@evil.example"), plain),
        (resource("https://user:secret@vault.azure.net"), plain),
        (resource(r"https://vault.azure.net\\@evil.example"), plain),
        (resource("https://vault.azure.net:8443"), plain),
        (resource("https://vault.azure.net/.default https://graph.microsoft.com"), plain),
        (resource("https://vault.azure.net?x=https://evil.example"), plain),
        (resource("https://vault\t.azure.net"), plain),
        (resource("http://vault.azure.net"), plain),
        (resource(&format!("https://{}.vault.azure.net", "a".repeat(8_000))), plain),
        (resource(&"\u{1b}[31m".replace('\u{1b}', "\u{9b}")), plain),
        (format!("{}, {}", resource("https://vault.azure.net"), r#"resource="https://evil.example""#), "is malformed"),
        (format!("Bearer {many}"), "its WWW-Authenticate header is too large"),
        ("Basic a=b, ".repeat(1_000), large),
        (format!("Bearer realm=\"{}\", resource=\"https://vault.azure.net\"", "x".repeat(200_000)), large),
        ("\"".repeat(3_000), "its WWW-Authenticate header is malformed"),
        (
            r#"Bearer error="insufficient_claims", claims="e30=""#.to_owned(),
            "requires claims that the token lacks; let",
        ),
    ]
}

fn hostile_challenges_get_no_token_and_a_short_error() -> Result<()> {
    with_driver(&[], |fixture| {
        for (number, (header, words)) in hostile_headers().into_iter().enumerate() {
            fixture.azure.answer(challenge(with_challenge(&header)));
            fixture.class(&vault(number), &[], &secret("pem"))?;
            is_refused(fixture, number, words).with_context(|| format!("{header:.120}"))?;
        }
        Ok(())
    })
}

fn is_refused(fixture: &Fixture, number: usize, words: &str) -> Result<()> {
    let text = fixture.cause(&pod_of_application())?;
    ensure!(text.contains(words) && text.starts_with(&vault(number)) && text.len() < 700, "{text}");
    let asked = fixture.azure.lines();
    ensure!(asked == [format!("GET {}.vault.azure.net/secrets/pem/", vault(number))], "{asked:?}");
    Ok(())
}
