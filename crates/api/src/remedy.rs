use super::Reason;

impl Reason {
    /// What a user does about it. The table of `docs/troubleshooting.md` has the same text.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Reason::TokenValid | Reason::LifetimeSufficient => "nothing",
            Reason::Requesting | Reason::Expired => {
                "nothing: a token is being asked for; if this stays for minutes, look whether the operator runs and watches this namespace"
            }
            Reason::RefreshFailing => {
                "see status.lastFailure: its reason says what to do, and the token's end how soon"
            }
            Reason::CredentialsNotFound => {
                "create the Secret, or the key, that the message names; the operator sees it by itself"
            }
            Reason::CredentialsInvalid => {
                "write the value anew, in the Secret and key that the message names; the operator sees it by itself"
            }
            Reason::ClientRejected => {
                "compare client id, client secret and clientAuthentication with what the issuer has; new values are tried at once"
            }
            Reason::GrantRejected => {
                "put a new refresh token (or API token, or assertion key) into the credentials Secret; see that the client may use this grant"
            }
            Reason::ScopeRejected => {
                "have the issuer grant the client this scope, or remove it from spec.provider"
            }
            Reason::RequestRejected => {
                "see in the message what the endpoint objects to; correct the URL or the parameters in spec.provider, and try with `tokensource-operator mint`"
            }
            Reason::RateLimited => {
                "wait until status.lastFailure.nextAttemptAt; after a lock-out correct the credentials first"
            }
            Reason::EndpointUnavailable => {
                "see whether the endpoint is up, and whether the operator's pod may reach it (DNS, NetworkPolicy, proxy); attempts go on by themselves"
            }
            Reason::EndpointRefusedByPolicy => {
                "have the platform allow the endpoint, with the flag that the message names"
            }
            Reason::ResponseMalformed => {
                "see with `tokensource-operator mint` what comes back; endpoints with words of their own need spec.provider.oauth2.response"
            }
            Reason::TemplateInvalid => {
                "correct spec.target.template at the key and line that the message names"
            }
            Reason::SpecInvalid => "correct the field that the message names",
            Reason::NotAllowedByIssuer => {
                "ask for what the issuer allows in spec.request, or have the platform allow more, or this namespace, in the ClusterTokenIssuer"
            }
            Reason::IssuerNotReady => {
                "have the platform correct the ClusterTokenIssuer that the message names, or what the message says; it is seen by itself"
            }
            Reason::TooManySources => {
                "delete TokenSources that are not needed, or have the platform raise the bound that the message names"
            }
            Reason::TargetConflict => {
                "hand the Secret over if it is yours and the message prints the command, or make a TokenSource with another spec.target.name"
            }
            Reason::ConflictingWriter => {
                "find who else writes this Secret (its managedFields tell), and have them stop, or give the TokenSource another spec.target.name"
            }
            Reason::TargetRefused => {
                "lift what the message names (a quota, an admission policy, `immutable`); the token waits in memory and is written then"
            }
            Reason::KubernetesApiError => {
                "give the operator's ServiceAccount the right that the message names, or mend the admission webhook or the encryption of Secrets that fails; what waits is written then"
            }
            Reason::NamespaceNotOpened => {
                "run the command that the message prints, or apply the RoleBinding in another way; it is seen within a minute"
            }
            Reason::Suspended => "remove spec.suspend to have tokens again",
            Reason::NoRetryRoom | Reason::LifetimeTooShort => {
                "have the issuer give longer tokens (VGS: accessTokenLifespan), set spec.target.propagation to Prompt, or read the Secret through the Kubernetes API"
            }
            Reason::IssuerReturnsCachedTokens => {
                "have the issuer give a new token to every request, or a longer one; readers should try once more after a 401"
            }
            Reason::PromptFailed => {
                "have the platform set the Helm value promptPropagation.enabled (a role with the verbs list and patch on pods), or remove spec.target.propagation; if it is about single pods, the message says what is in the way"
            }
            Reason::StaticMount => {
                "mount the Secret as a folder, without subPath, and read the file at every call"
            }
        }
    }

    /// The same for a TokenSource; with an issuer, endpoint, client and credentials are the platform's.
    #[must_use]
    pub const fn remedy_for(self, has_issuer: bool) -> &'static str {
        match self {
            _ if !has_issuer => self.remedy(),
            Reason::CredentialsNotFound
            | Reason::CredentialsInvalid
            | Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::EndpointRefusedByPolicy
            | Reason::ResponseMalformed
            | Reason::SpecInvalid
            | Reason::KubernetesApiError => {
                "do what the message says, or have the platform look up the cause in the operator's log"
            }
            Reason::ScopeRejected | Reason::RequestRejected => {
                "ask for something else in spec.request, or have the platform look up in the operator's log what the endpoint objects to"
            }
            Reason::EndpointUnavailable | Reason::RateLimited => {
                "wait: attempts go on by themselves; the platform sees the cause in the issuer's status and in the operator's log"
            }
            _ => self.remedy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

    /// The name and the other cells of each table row of the page that starts with a single name in backticks.
    fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
        let cells = |line: &'static str| {
            let line = line.strip_prefix("| `")?.strip_suffix(" |")?;
            let (name, rest) = line.split_once("` | ")?;
            Some((name, rest.split(" | ").collect()))
        };
        PAGE.lines().filter_map(cells).collect()
    }

    #[test]
    fn remedy_table_of_the_page_has_a_row_for_every_reason_and_no_other() {
        let rows = rows();
        for reason in Reason::ALL {
            let matching: Vec<_> = rows.iter().filter(|(name, _)| *name == reason.as_str()).collect();
            let [(_, cells)] = matching[..] else { panic!("{reason}: {} rows", matching.len()) };
            let [meaning, remedy] = cells[..] else { panic!("{reason}: {cells:?}") };
            assert!(!meaning.is_empty());
            assert_eq!(remedy, reason.remedy(), "{reason}");
        }
        assert_eq!(rows.len(), Reason::ALL.len(), "{rows:?}");
    }

    #[test]
    fn remedy_with_an_issuer_names_nothing_that_is_the_platforms() {
        for reason in Reason::ALL {
            assert_eq!(reason.remedy_for(false), reason.remedy());
            let lent = reason.remedy_for(true);
            for word in ["client", "credentials Secret", "spec.provider", "mint", "Secret and key"] {
                assert!(!lent.contains(word), "{reason}: {lent}");
            }
        }
    }
}
