# The tools beside .venv; a change here makes them anew.
# Pinned on purpose: the generator's version is the floor of what users must install (tools/protogen.py).
PROTOGEN := grpcio-tools==1.76.0 mypy-protobuf==5.1.0 setuptools<81
BUF := @bufbuild/buf@1.75.0
AZURITE := azurite@3.35.0
GRPCURL := github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
NEWEST := protobuf>=7,<8 grpcio grpcio-status
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
