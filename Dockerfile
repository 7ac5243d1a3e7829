# syntax=docker/dockerfile:1
# relightd in a small image.
#
#   docker build --target cpu -t relight .
#   docker build --target cuda -t relight:cuda --build-arg LIBTORCH_URL=... --build-arg LIBTORCH_SHA256=... .
#
# --build-arg JOBS=N sets how many compilers run at once; without it, as many as the cores and the
# free memory allow.
#
# The package lists are those that ./dev reads. No heredocs, COPY --link or ADD --checksum: buildah
# of the same Debian release builds this file too.

ARG DEBIAN=bookworm

FROM debian:${DEBIAN}-slim AS build-base
ARG DEBIAN
WORKDIR /src
COPY packages packages
RUN apt-get update \
  && sed -e 's/#.*//' packages/${DEBIAN}/build.txt \
     | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  && rm -rf /var/lib/apt/lists/*

FROM build-base AS build-cpu
ARG JOBS=""
COPY . .
RUN cmake --preset release -DCMAKE_INSTALL_PREFIX=/usr \
  && cmake --build --preset release -j "${JOBS:-$(./dev jobs)}" \
  && DESTDIR=/out cmake --install build/release --strip --component daemon \
  && DESTDIR=/out cmake --install build/release --strip --component ctl

# What both targets' images share: who runs, where, and how it is asked and stopped.
FROM debian:${DEBIAN}-slim AS runtime-base
ARG DEBIAN
COPY packages/${DEBIAN}/runtime.txt /tmp/runtime.txt
RUN groupadd --system --gid 990 relight \
  && useradd --system --uid 990 --gid 990 --no-create-home --home-dir /nonexistent relight \
  && mkdir -p /models /snapshots /state /run/relight \
  && chown relight:relight /snapshots /state /run/relight && chmod 0700 /state /run/relight
# Where relightctl looks, in the health check too: with another --grpc-port set RELIGHT_SERVER.
ENV RELIGHT_ADMIN_SOCKET=/run/relight/admin.sock RELIGHT_SERVER=127.0.0.1:8001
EXPOSE 8001 8002
# The admin socket's folder is a volume too, so that it can be written to with a read-only root.
VOLUME ["/models", "/snapshots", "/state", "/run/relight"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["relightctl", "health"]
ENTRYPOINT ["relightd", "--model-repository=/models", "--snapshot-dir=/snapshots", \
  "--state-dir=/state", "--admin-socket=/run/relight/admin.sock"]

FROM runtime-base AS cpu
RUN apt-get update \
  && sed -e 's/#.*//' /tmp/runtime.txt \
     | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  && rm -rf /var/lib/apt/lists/* /tmp/runtime.txt
COPY --from=build-cpu /out/usr /usr
USER relight

# The official LibTorch with CUDA inside; the host brings only the driver. An archive with the
# C++11 ABI, 2.7 or newer, for the CUDA release of Debian's toolkit (bookworm: 11.8, "cu118"), which
# is needed to compile but not to run.
FROM build-base AS build-cuda
ARG LIBTORCH_URL=""
ARG LIBTORCH_SHA256=""
ARG JOBS=""
RUN test -n "${LIBTORCH_URL}" -a -n "${LIBTORCH_SHA256}" \
  || { echo "give --build-arg LIBTORCH_URL=... and LIBTORCH_SHA256=...: see the top of the Dockerfile" >&2; exit 1; } \
  && sed -i 's/^Components: main$/Components: main contrib non-free/' \
       /etc/apt/sources.list.d/debian.sources \
  && apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       curl nvidia-cuda-dev nvidia-cuda-toolkit unzip \
  && rm -rf /var/lib/apt/lists/* \
  && curl -fsSL -o /tmp/libtorch.zip "${LIBTORCH_URL}" \
  && echo "${LIBTORCH_SHA256}  /tmp/libtorch.zip" | sha256sum -c - \
  && unzip -q /tmp/libtorch.zip -d /opt && rm /tmp/libtorch.zip
COPY . .
RUN cmake --preset release -DCMAKE_PREFIX_PATH=/opt/libtorch -DCMAKE_INSTALL_PREFIX=/usr \
     -DCMAKE_INSTALL_RPATH=/opt/libtorch/lib \
  && cmake --build --preset release -j "${JOBS:-$(./dev jobs)}" \
  && DESTDIR=/out cmake --install build/release --strip --component daemon \
  && DESTDIR=/out cmake --install build/release --strip --component ctl \
  && mkdir -p /out/opt/libtorch && cp -a /opt/libtorch/lib /out/opt/libtorch/lib \
  && find /out/opt/libtorch/lib -name '*.a' -delete

FROM runtime-base AS cuda
# All of the runtime but Debian's own LibTorch.
RUN apt-get update \
  && sed -e 's/#.*//' -e '/^libtorch/d' /tmp/runtime.txt \
     | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
  && rm -rf /var/lib/apt/lists/* /tmp/runtime.txt
COPY --from=build-cuda /out/ /
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER relight
