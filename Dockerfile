# syntax=docker/dockerfile:1

# The binary is static (musl, with its own TLS), so the image needs only certificates.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev gcc ca-certificates
WORKDIR /src

# The dependencies are built in a separate layer, which is rebuilt only if the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches tests/browser \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && echo 'fn main() {}' | tee benches/throughput.rs tests/browser/server.rs > benches/redis.rs \
    && cargo build --release --locked --bin labelcast \
    && rm -r src benches tests

COPY src src
RUN mkdir -p benches tests/browser \
    && echo 'fn main() {}' | tee benches/throughput.rs tests/browser/server.rs > benches/redis.rs \
    && touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin labelcast

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/labelcast /labelcast
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# An unprivileged user by number. The image contains no user names.
USER 65532:65532
ENTRYPOINT ["/labelcast"]
CMD ["run"]
