//! A client of OAuth 2.0 token endpoints (RFC 6749). It knows no Kubernetes.
