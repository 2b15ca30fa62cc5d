#!/usr/bin/env bash
# Regenerates everything under api/ that is derived from api/v1alpha1/*.go:
# deep copies, OpenAPI models, the typed client, listers and informers.
# `hack/codegen.sh` writes it; `make verify` runs it and fails when it changes a file.
set -euo pipefail
cd "$(dirname "$0")/.."

module=$(go list -m)
types=$module/api/v1alpha1
client=$module/api/client
header=hack/boilerplate.go.txt

go tool deepcopy-gen --go-header-file $header --output-file zz_generated.deepcopy.go ./api/v1alpha1
go tool openapi-gen --go-header-file $header --output-dir api/openapi --output-pkg "$module/api/openapi" \
  --output-file zz_generated.openapi.go --report-filename /dev/null \
  --output-model-name-file zz_generated.model_name.go ./api/v1alpha1
go tool client-gen --go-header-file $header --input-base "" --input "$types" \
  --clientset-name clientset --output-dir api/client --output-pkg "$client" --fake-clientset=true
go tool lister-gen --go-header-file $header --output-dir api/client/listers --output-pkg "$client/listers" ./api/v1alpha1
go tool informer-gen --go-header-file $header --output-dir api/client/informers --output-pkg "$client/informers" \
  --versioned-clientset-package "$client/clientset" --listers-package "$client/listers" --single-directory ./api/v1alpha1
