# Only a static binary and root certificates, built by hack/image.sh; `make image` builds the same without Docker.

# By digest (of the index of all architectures), because a tag can be moved; Dependabot updates both.
FROM rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
WORKDIR /src
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} hack/image.sh root /root-of-the-image

FROM scratch
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="tokensource-operator" \
      org.opencontainers.image.description="A Kubernetes operator that keeps short-lived OAuth 2.0 access tokens fresh in Secrets" \
      org.opencontainers.image.source="https://github.com/tokensource/tokensource-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /root-of-the-image /
# By number, because a kubelet cannot check that a named user is not root.
USER 65532:65532
WORKDIR /
EXPOSE 8080
ENTRYPOINT ["/tokensource-operator"]
CMD ["run"]
