# syntax=docker/dockerfile:1
# The image that make image makes, for those who build with an engine: the same files, by the same program, from
# the same empty base. For two platforms: docker buildx build --platform linux/amd64,linux/arm64 ...
#
# TAGS=sql, as a build argument, links the drivers of PostgreSQL and MySQL for vault.url_file.
#
#   docker build --build-arg VERSION=v1.2.3 --build-arg REVISION=$(git rev-parse HEAD) -t wxtoken:v1.2.3 .

FROM --platform=$BUILDPLATFORM golang:1.26@sha256:3aff6657219a4d9c14e27fb1d8976c49c29fddb70ba835014f477e1c70636647 AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY deploy/go.mod deploy/go.sum deploy/
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download && cd deploy && go mod download
COPY . .
ARG VERSION=devel
ARG TAGS=
ARG SOURCE_DATE_EPOCH=0
ARG TARGETARCH
# CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' and the texts of the licenses: deploy/image/rootfs.go.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/cache \
    cd deploy && GOCACHE=/go/cache SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH go run ./image -version "$VERSION" -tags "$TAGS" -arch "$TARGETARCH" rootfs /rootfs

FROM scratch
ARG VERSION=devel
ARG REVISION=
LABEL org.opencontainers.image.title="wxtoken" \
      org.opencontainers.image.description="Sidecar that keeps WeChat access tokens for every pod, with one refresh for the whole cluster" \
      org.opencontainers.image.source="https://github.com/wxtoken/sidecar" \
      org.opencontainers.image.url="https://github.com/wxtoken/sidecar" \
      org.opencontainers.image.documentation="https://github.com/wxtoken/sidecar#readme" \
      org.opencontainers.image.vendor="wxtoken" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /rootfs/ /
WORKDIR /
USER 65532:65532
EXPOSE 7201/tcp
HEALTHCHECK --interval=10s --timeout=3s --retries=3 CMD ["/sidecar", "healthcheck"]
ENTRYPOINT ["/sidecar"]
