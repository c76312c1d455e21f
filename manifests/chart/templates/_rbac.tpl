{{/* Binds one of the node's roles to its account; takes scope, binding and role. */}}
{{- define "keyvault-csi.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .binding }}
  labels:
    {{- include "keyvault-csi.labels" .scope | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .role }}
subjects:
  - kind: ServiceAccount
    name: secrets-store-csi-driver
    namespace: {{ .scope.Release.Namespace }}
{{- end -}}
