# redgrease with the embedded Valkey, for a first look and for tests. Not built by CI: no test covers it.
#
#   docker build --target single --tag redgrease .
#   docker run --publish 127.0.0.1:6379:6379 --volume redgrease:/data redgrease
#
#   docker build --target cluster --tag redgrease-cluster .
#   docker run --publish 127.0.0.1:30001-30003:30001-30003 --volume redgrease-cluster:/data redgrease-cluster
#
# The servers have no password, and a client that can connect can run programs in the container: publish the ports to
# this machine only, as above. The nodes of the cluster tell clients the address 127.0.0.1.
FROM rust:1.88.0-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# The toolchain of the image, and not the newest one.
ENV RUSTUP_TOOLCHAIN=1.88.0
WORKDIR /src
COPY . .
RUN python3 -m venv /opt/redgrease && /opt/redgrease/bin/pip install --no-cache-dir ".[all]"

FROM debian:bookworm-slim AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home redgrease \
    && install -d -o redgrease -g redgrease /data
COPY --from=build /opt/redgrease /opt/redgrease
ENV PATH=/opt/redgrease/bin:$PATH
USER redgrease
VOLUME /data

FROM base AS cluster
EXPOSE 30001 30002 30003
CMD ["redgrease", "serve", "--cluster", "3", "--dir", "/data", "--", "--bind", "*", "-::*", "--protected-mode", "no"]

FROM base AS single
EXPOSE 6379
CMD ["redgrease", "serve", "--dir", "/data", "--", "--bind", "*", "-::*", "--protected-mode", "no"]
