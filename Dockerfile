# Plainfold in an image that holds nothing else: no shell, no package manager. docs/install.md says how to
# build and run it.

FROM rust:1.95-bookworm AS build
WORKDIR /src
# First the dependencies: this layer stays as long as Cargo.lock does, and all that follows needs no network.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs src/main.rs && cargo fetch --locked
COPY . .
RUN cargo build --release --locked --offline --bin plainfold
RUN .ci/image target/release/plainfold /image && mkdir /empty

FROM scratch
COPY --from=build /image /
COPY --from=build --chown=10001:10001 /empty /etc/plainfold
COPY --from=build --chown=10001:10001 /empty /run/plainfold
COPY --from=build --chown=10001:10001 /empty /var/lib/plainfold
USER 10001:10001
# Where the socket is.
ENV RUNTIME_DIRECTORY=/run/plainfold
VOLUME ["/etc/plainfold", "/var/lib/plainfold"]
# The batches in flight are finished first.
STOPSIGNAL SIGTERM
# Healthy is: the agent answers, and nothing is wrong with any mirror.
HEALTHCHECK --interval=1m --timeout=10s --start-period=10m CMD ["/usr/bin/plainfold", "mirrors"]
ENTRYPOINT ["/usr/bin/plainfold"]
CMD ["run"]
