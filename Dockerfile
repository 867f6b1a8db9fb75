# bend_hf on a CPU, with its tests. The tested versions are those of constraints.txt.
#   docker build -t bend_hf .
#   docker run --rm bend_hf              # make demo
#   docker run --rm bend_hf make test
#   docker run --rm -it -v "$PWD/results:/home/bend/bend_hf/results" bend_hf bash
FROM python:3.11-slim-bookworm

# make runs the targets of the Makefile, and git is for work in a development container.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y git make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 bend
USER 1000
WORKDIR /home/bend/bend_hf
COPY --chown=bend:bend . .

# PyTorch for a CPU is much smaller than the one for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="${TORCH_INDEX}" make setup-dev
ENV PATH="/home/bend/bend_hf/.venv/bin:${PATH}"

CMD ["make", "demo"]
