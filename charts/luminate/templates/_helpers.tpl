{{- define "luminate.name" -}}
{{- .Values.nameOverride | default (printf "%s-operator" .Chart.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Of what is made. A release that is called as the chart adds nothing to the name. */}}
{{- define "luminate.fullname" -}}
{{- $name := include "luminate.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if or (eq .Release.Name .Chart.Name) (eq .Release.Name $name) }}
{{- $name }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "luminate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "luminate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of what is made, with more of them: (list . more …). Nobody's label replaces one by which things are found. */}}
{{- define "luminate.labelsWith" -}}
{{- $root := first . }}
{{- with $root }}
{{- $own := dict
    "app.kubernetes.io/component" "operator"
    "app.kubernetes.io/part-of" "luminate"
    "app.kubernetes.io/managed-by" .Release.Service
    "app.kubernetes.io/version" .Chart.AppVersion
    "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") }}
{{- $own = merge $own (include "luminate.selectorLabels" . | fromYaml) }}
{{- range rest $ }}
{{- $own = merge $own . }}
{{- end }}
{{- merge $own .Values.commonLabels | toYaml }}
{{- end }}
{{- end }}

{{- define "luminate.labels" -}}
{{- include "luminate.labelsWith" (list .) }}
{{- end }}

{{/* Of roles outside the release's namespace: two releases of one name in two namespaces each have theirs. */}}
{{- define "luminate.widename" -}}
{{- printf "%s-%s" .Release.Namespace (include "luminate.fullname" .) }}
{{- end }}

{{- define "luminate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "luminate.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "luminate.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion }}
{{- if .Values.image.digest }}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{/* The n-th role's rules in a file of deploy/rbac, word for word. Call with (list . file n). */}}
{{- define "luminate.rules" -}}
{{- $document := index (splitList "\n---\n" ((index . 0).Files.Get (index . 1))) (index . 2) }}
{{- regexFind "(?ms)^rules:\n.*" $document | trimSuffix "\n" }}
{{- end }}

{{/* Whether an object of a kind of Prometheus's operator is made. Call with (list . create kind). */}}
{{- define "luminate.monitored" -}}
{{- $create := index . 1 }}
{{- $known := (index . 0).Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 2)) }}
{{- if or (eq $create "always") (and (eq $create "auto") $known) }}true{{ end }}
{{- end }}

{{- define "luminate.firstNamespace" -}}
{{- with .Values.luminate }}{{ .namespace | default $.Release.Namespace }}{{ end }}
{{- end }}

{{/* Of the pod of `helm test`: none by which the Service or the budget would take it for an operator. */}}
{{- define "luminate.testLabels" -}}
app.kubernetes.io/name: {{ include "luminate.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "luminate.subjects" }}
subjects:
  - kind: ServiceAccount
    name: {{ include "luminate.serviceAccountName" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A pod's spec that runs the operator's program once: (list . argument …). */}}
{{- define "luminate.once" -}}
{{- with first . -}}
restartPolicy: Never
serviceAccountName: {{ include "luminate.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: check
    image: {{ include "luminate.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: {{ rest $ | toJson }}
    {{- with .Values.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.securityContext }}
    securityContext:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- end }}
