use proptest::prelude::*;
use serde_json::json;

use super::*;

const TOKEN: &str = "eyJhbGciOi.hunter2-token/+=.sig";

fn spec(template: serde_json::Value) -> api::Template {
    serde_json::from_value(template).unwrap()
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, SecretString> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}

fn token<'a>(access_token: &'a SecretString, values: &'a BTreeMap<String, SecretString>) -> Token<'a> {
    Token {
        access_token,
        token_type: "Bearer",
        issued_at: "2026-11-22T05:00:00Z".parse().unwrap(),
        expires_at: "2026-11-22T05:05:00Z".parse().unwrap(),
        scope: "read write".into(),
        values,
    }
}

#[test]
fn template_limited_to_keys_names_the_first_other_one() {
    let metadata = json!({"labels": {"team": "a"}, "annotations": {"example.com/b": "c"}});
    let spec = spec(json!({"metadata": metadata}));
    let limited = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(|key| (*key).to_owned()).collect();
        Template::of(Some(&spec), &[]).unwrap().limited_to(&only).map(drop).map_err(|it| it.to_string())
    };
    assert_eq!(limited(&[]), Ok(()));
    assert_eq!(limited(&["example.com/b", "team"]), Ok(()));
    assert!(
        limited(&["team"])
            .unwrap_err()
            .starts_with("spec.target.template.metadata.annotations: example.com/b is not")
    );
    let said = limited(&["example.com/b", "Team"]).unwrap_err();
    assert!(said.starts_with("spec.target.template.metadata.labels: team is not"), "{said}");
    assert!(said.ends_with("add it to --template-metadata-only"), "{said}");
}

/// Renders one key.
fn rendered(template: &str) -> Result<String, String> {
    let spec = spec(json!({"data": {"key": template}}));
    let values = values(&[("instance_url", "https://a.example.com"), ("count", "7")]);
    let template =
        Template::of(Some(&spec), &["instance_url", "count", "absent"]).map_err(|it| it.to_string())?;
    let rendered = template.render(&token(&TOKEN.into(), &values)).map_err(|it| it.to_string())?;
    Ok(rendered.data["key"].expose_secret().to_owned())
}

#[test]
fn render_supports_names_filters_tests_and_conditions() {
    for (template, expected) in [
        ("{{ token_type }} {{ access_token }}", format!("Bearer {TOKEN}")),
        ("no braces", "no braces".to_owned()),
        ("", String::new()),
        ("a\n", "a\n".to_owned()),
        ("{{ expires_at }} {{ expires_at_unix }}", "2026-11-22T05:05:00Z 1795323900".to_owned()),
        ("{{ expires_at_unix * 1000 }}", "1795323900000".to_owned()),
        ("{{ issued_at }} {{ scope }}", "2026-11-22T05:00:00Z read write".to_owned()),
        ("{{ ('oauth2:' ~ access_token) | b64encode }}", STANDARD.encode(format!("oauth2:{TOKEN}"))),
        ("{{ '\"<é>' | tojson }}", r#""\"<é>""#.to_owned()),
        ("{{ expires_at_unix | tojson }}", "1795323900".to_owned()),
        ("{{ 'a/b+c d~' | urlencode }}", "a%2Fb%2Bc%20d~".to_owned()),
        ("{{ values.instance_url }}", "https://a.example.com".to_owned()),
        ("{{ values.instance_url | replace('https://', '') | upper }}", "A.EXAMPLE.COM".to_owned()),
        ("{{ (values.count | int) + 1 }}", "8".to_owned()),
        ("{{ values.absent | default('-') }}", "-".to_owned()),
        (
            "{% if values.absent is defined %}a{% elif scope == 'read write' %}b{% else %}c{% endif %}",
            "b".to_owned(),
        ),
        ("{{ 'yes' if values.count is startingwith('7') and not false else 'no' }}", "yes".to_owned()),
        ("{% raw %}{{ access_token }}{% endraw %}{# none #}", "{{ access_token }}".to_owned()),
        ("<&'\">", "<&'\">".to_owned()),
    ] {
        assert_eq!(rendered(template).as_deref(), Ok(expected.as_str()), "{template}");
    }
}

#[test]
fn template_errors_name_key_and_line_and_no_value() {
    for (template, line, expected) in [
        ("a\n{{ acces_token }}", 2, "the name acces_token is not defined; there are access_token"),
        ("{{ client_secret }}", 1, "the name client_secret is not defined"),
        (
            "{{ values.refresh_token }}",
            1,
            "values.refresh_token is not defined: spec.provider.oauth2.response.values names instance_url, count, absent",
        ),
        ("{{ values }}", 1, "write {{ values.NAME }}"),
        ("{{ values['count'] }}", 1, "a value is {{ values.NAME }}"),
        ("{{ access_token.x }}", 1, "only values has members"),
        ("\n\n{{ access_token", 3, "not in Jinja's syntax"),
        ("{% if scope %}", 1, "not in Jinja's syntax"),
        ("{{ access_token | base64 }}", 1, "the filter base64 is not defined; there are b64encode"),
        ("{{ access_token is foo }}", 1, "the test foo is not defined"),
        ("{% for x in scope %}{{ x }}{% endfor %}", 1, "no other statements"),
        ("{% set x = 1 %}", 1, "no other statements"),
        ("{% include 'a' %}", 1, "not in Jinja's syntax"),
        ("{{ range(10) }}", 1, "no functions"),
        ("{{ [1, 2] }}", 1, "no functions, lists"),
        ("{{ access_token[:3] }}", 1, "no functions, lists"),
        ("{{ 'a' * 100000000 }}", 1, "only numbers can be multiplied"),
        ("{{ 2 ** 100 }}", 1, "there is no operator **"),
        ("{{ access_token + 1 }}", 1, "texts are joined with ~"),
        ("{{ access_token | int }}", 1, "something is done with a value"),
        ("{{ access_token | trim(1, 2, 3) }}", 1, "too many arguments"),
        ("{{ access_token | default(*scope) }}", 1, "plain arguments alone"),
        ("a\n{{ values.absent }}", 2, "the endpoint's answer does not have it"),
        ("{{ values.absent | tojson }}", 1, "the endpoint's answer does not have it"),
        ("{{ access_token | replace('', access_token) }}", 1, "something is done with a value"),
    ] {
        let error = rendered(template).unwrap_err();
        assert!(
            error.starts_with(&format!("spec.target.template.data, key key, line {line}: ")),
            "{template}: {error}"
        );
        assert!(error.contains(expected), "{template}: {error}");
        assert!(!error.contains("hunter2"), "{template}: {error}");
    }
}

#[test]
fn template_that_is_large_or_deeply_nested_is_refused() {
    let nested = |open: &str, close: &str, n: usize| {
        format!("{{{{ {}access_token{} }}}}", open.repeat(n), close.repeat(n))
    };
    let chain = |part: &str, n: usize| format!("{{{{ access_token{} }}}}", part.repeat(n));
    for (template, expected) in [
        (nested("(", ")", 300), "at most 512 words"),
        (nested("(", ")", 200), "not in Jinja's syntax"),
        (chain(" ~ access_token", 200), "nested too deep"),
        (chain("|tojson", 60), "this makes too much"),
        (chain("|b64encode", 60), "this makes too much"),
        (chain("|replace('h', access_token)", 30), "this makes too much"),
        ("{% if scope %}".repeat(70) + &"{% endif %}".repeat(70), "nested too deep"),
        ("{% if scope %}".to_owned() + &"{% elif scope %}".repeat(100) + "{% endif %}", "nested too deep"),
        ("{{ scope }}".repeat(400), "at most 512 words"),
        ("x".repeat(MAX_TEMPLATE_BYTES + 1), "at most 16384 bytes"),
        (
            "{{ access_token | trim(access_token ~ access_token ~ access_token) }}".to_owned(),
            "not made for it",
        ),
    ] {
        let error = rendered(&template).unwrap_err();
        assert!(error.contains(expected), "{error}: {template:.80}");
    }
    let spec = spec(json!({"data": {"a": "{{ access_token }}".repeat(40)}}));
    let template = Template::of(Some(&spec), &[]).unwrap();
    let none = values(&[]);
    let error = template.render(&token(&"x".repeat(MAX_TOKEN_BYTES).into(), &none)).err().unwrap();
    assert!(error.to_string().contains("a Secret holds 1 MiB"), "{error}");
    let error = template.render(&token(&"x".repeat(MAX_TOKEN_BYTES + 1).into(), &none)).err().unwrap();
    assert!(error.to_string().contains("the token has 32769 bytes"), "{error}");
}

/// What is made and not written costs as much: it must end before it is made.
#[test]
fn template_work_is_bounded_although_nothing_of_it_is_written() {
    let token_32k: SecretString = "h".repeat(MAX_TOKEN_BYTES).into();
    let none = values(&[]);
    let render = |text: &str, times: usize| {
        let joined = vec![text; times].join(" ~ ");
        let spec = spec(
            json!({"data": {"a": format!("{{{{ 'y' if ({joined}) is startingwith('x') else 'n' }}}}")}}),
        );
        let template = Template::of(Some(&spec), &[]).unwrap();
        template
            .render(&token(&token_32k, &none))
            .map(|it| it.data["a"].expose_secret().to_owned())
            .map_err(|it| it.to_string())
    };
    for (text, times) in [
        ("access_token | replace('h', '12345678')", 46),
        ("access_token | b64encode", 46),
        ("access_token | urlencode", 46),
        ("access_token | tojson", 46),
        ("access_token | upper", 46),
        ("access_token | trim('x')", 46),
        ("access_token | replace('h', '123456789')", 1),
    ] {
        let made = render(text, times);
        assert!(made.as_ref().is_err_and(|it| it.contains("this makes too much")), "{text}: {made:?}");
    }
    assert_eq!(render("access_token", 46).as_deref(), Ok("n"));
    assert_eq!(render("access_token | b64encode", 10).as_deref(), Ok("n"));
}

#[test]
fn template_with_a_refused_type_or_metadata_is_refused() {
    for (template, expected) in [
        (
            json!({"type": "kubernetes.io/service-account-token"}),
            "spec.target.template.type: kubernetes.io/service-account-token is refused",
        ),
        (json!({"type": "bootstrap.kubernetes.io/token"}), "is refused"),
        (
            json!({"metadata": {"annotations": {"kubernetes.io/service-account.name": "a"}}}),
            "spec.target.template.metadata.annotations: kubernetes.io/service-account.name",
        ),
        (
            json!({"metadata": {"labels": {"argocd.argoproj.io/secret-type": "cluster"}}}),
            "spec.target.template.metadata.labels: argocd",
        ),
        (json!({"type": "kubernetes.io/dockerconfigjson"}), "key .dockerconfigjson: its type needs this key"),
        (
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "{{ access_token }}"}}),
            "key .dockerconfigjson: what it makes is no JSON",
        ),
        (json!({"type": "kubernetes.io/basic-auth"}), "key username"),
    ] {
        let error = Template::of(Some(&spec(template)), &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn template_result_that_violates_the_type_is_an_error() {
    let spec = spec(json!({
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": "{\"auths\": {\"r\": {\"username\": {{ values.user }}, \"password\": {{ access_token | tojson }}}}}"},
    }));
    // With the placeholder 1 the result is JSON, but the user name is not a string.
    let error = Template::of(Some(&spec), &["user"]).unwrap_err().to_string();
    assert!(error.contains("each registry needs username and password"), "{error}");
}

#[test]
fn template_digest_of_a_default_template_is_none() {
    let digest = |template| template_digest(Some(&spec(template)));
    assert_eq!(template_digest(None), None);
    for same in
        [json!({}), json!({"type": "Opaque"}), json!({"metadata": {}}), json!({"metadata": {"labels": {}}})]
    {
        assert_eq!(digest(same), None);
    }
    let one = digest(json!({"data": {"a": "b"}}));
    assert!(one.is_some());
    assert_eq!(one, digest(json!({"type": "Opaque", "data": {"a": "b"}, "metadata": {"annotations": {}}})));
    assert_ne!(one, digest(json!({"data": {"a": "c"}})));
    assert_ne!(one, digest(json!({"data": {"a": "b"}, "metadata": {"labels": {"a": "b"}}})));
    assert_ne!(one, digest(json!({"data": {"a": "b"}, "type": "example.com/token"})));
}

#[test]
fn render_without_a_template_writes_the_default_keys() {
    let (secret, none) = (TOKEN.into(), values(&[]));
    let rendered = Template::of(None, &[]).unwrap().render(&token(&secret, &none)).unwrap();
    let data: Vec<_> =
        rendered.data.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect();
    assert_eq!(
        data,
        [("access_token", TOKEN), ("expires_at", "2026-11-22T05:05:00Z"), ("token_type", "Bearer")]
    );
    assert_eq!(rendered.kind, "Opaque");
}

/// Combinations of valid and invalid template fragments, many of which are nearly valid.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "if ",
        "elif ",
        "else",
        "endif",
        "for x in ",
        "endfor",
        "set x = ",
        "raw",
        "endraw",
        "access_token",
        "values",
        ".",
        "count",
        "scope",
        "expires_at_unix",
        "|",
        "b64encode",
        "tojson",
        "replace",
        "default",
        "int",
        "is ",
        "defined",
        "not ",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "~",
        "+",
        "-",
        "*",
        "**",
        "/",
        "//",
        "%",
        "==",
        "<",
        "'",
        "\"",
        "\\",
        "1",
        "99999999999999999999",
        "1.5",
        " ",
        "\n",
        "é",
        "a",
    ]);
    prop_oneof![prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat()), any::<String>(),]
}

proptest! {
    #[test]
    fn template_never_panics_reveals_the_token_or_exceeds_the_limit(template in pieces()) {
        match rendered(&template) {
            Ok(text) => prop_assert!(text.len() <= MAX_SECRET_BYTES),
            Err(error) => prop_assert!(!error.contains("hunter2") && error.len() < 1000, "{}", error),
        }
    }
}
