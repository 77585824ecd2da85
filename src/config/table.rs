//! The table of all settings. The command line, environment, file, help and example file are built
//! from it.

/// A group of settings. Each command accepts some of the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// For commands that use the API.
    Api,
    /// For commands that read or publish the chats of labels.
    Run,
    /// For commands that have a sink.
    Sink,
    /// For commands that use what is known between runs.
    State,
    /// For the command that listens.
    Listen,
    /// For the command that looks up contacts.
    Enrich,
    /// For commands that end with a report.
    Report,
    /// For all commands.
    Log,
}

impl Group {
    /// All groups, in the order of the help.
    pub const ALL: [Self; 8] = [
        Self::Api,
        Self::Run,
        Self::Sink,
        Self::State,
        Self::Listen,
        Self::Enrich,
        Self::Report,
        Self::Log,
    ];

    /// Returns the name of the table in the file.
    pub fn table(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Run => "run",
            Self::Sink => "sink",
            Self::State => "state",
            Self::Listen => "listen",
            Self::Enrich => "enrich",
            Self::Report => "report",
            Self::Log => "log",
        }
    }

    /// Returns the heading in the help.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Run => "Run",
            Self::Sink => "Sink",
            Self::State => "State",
            Self::Listen => "Listen",
            Self::Enrich => "Enrich",
            Self::Report => "Report",
            Self::Log => "Log",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, `table.key`.
    pub key: &'static str,
    /// The flag, without the dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The kind of value that the flag takes. Empty for a switch.
    pub takes: &'static str,
    /// The default, as a user would write it. Empty if there is none.
    pub default: &'static str,
    /// Whether the flag may be repeated and the file takes a list.
    pub is_list: bool,
    /// Whether the value may contain a password and must not be shown.
    pub is_sensitive: bool,
    /// The group, which decides which commands accept the setting.
    pub group: Group,
    /// The help text.
    pub help: &'static str,
}

impl Setting {
    /// Returns whether the setting is a switch, on or off.
    pub fn is_switch(&self) -> bool {
        self.takes.is_empty()
    }

    /// Returns the name of the table in the file that the setting is in.
    pub fn table(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(table, _)| table)
    }

    /// Returns the three ways to set it, for an error message.
    pub fn ways(&self) -> String {
        let mut ways = format!("--{}", self.flag);
        if !self.env.is_empty() {
            ways.push_str(", ");
            ways.push_str(self.env);
        }
        if !self.key.is_empty() {
            ways.push_str(", or ");
            ways.push_str(self.key);
            ways.push_str(" in the file");
        }
        ways
    }

    /// Returns the setting with a key.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

const fn value(
    group: Group,
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    takes: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        flag,
        env,
        takes,
        default,
        is_list: false,
        is_sensitive: false,
        group,
        help,
    }
}

const fn switch(
    group: Group,
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    help: &'static str,
) -> Setting {
    value(group, key, flag, env, "", "", help)
}

/// All settings, in the order of the help and of the example file.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting { is_sensitive: true, ..value(Group::Api, "api.url", "api-url", "WAWP_API_URL", "URL", "https://api.wawp.net",
        "Base URL of the API") },
    value(Group::Api, "api.dialect", "dialect", "WAWP_DIALECT", "wawp-v2|wawp-v1|waha", "wawp-v2",
        "API dialect"),
    value(Group::Api, "api.instance_id", "instance-id", "WAWP_INSTANCE_ID", "ID", "",
        "Account id (for WAHA: the session)"),
    Setting { is_sensitive: true, ..value(Group::Api, "api.access_token_file", "access-token-file", "WAWP_ACCESS_TOKEN_FILE", "PATH", "",
        "File with the access token; without it, the token in WAWP_ACCESS_TOKEN is used") },
    value(Group::Api, "api.auth", "auth", "WAWP_AUTH", "query|bearer", "query",
        "Login by query parameters or by headers (WAHA: always the X-Api-Key header)"),
    value(Group::Api, "api.connect_timeout", "connect-timeout", "LABELCAST_CONNECT_TIMEOUT", "DURATION", "10s",
        "Connection time-out"),
    value(Group::Api, "api.read_timeout", "read-timeout", "LABELCAST_READ_TIMEOUT", "DURATION", "60s",
        "Time-out if no byte arrives, before or during a response"),
    value(Group::Api, "api.retries", "retries", "LABELCAST_RETRIES", "N", "5",
        "Retries after a transient error"),

    Setting { is_list: true, ..value(Group::Run, "run.labels", "label", "LABELCAST_LABELS", "ID", "",
        "Label to publish; for several, repeat the flag or separate them with commas") },
    switch(Group::Run, "run.all_labels", "all-labels", "LABELCAST_ALL_LABELS",
        "Publish every label of the account"),
    value(Group::Run, "run.shard", "shard", "LABELCAST_SHARD", "INDEX/COUNT", "",
        "Publish only this share of the labels: 0/4 to 3/4 for four processes"),
    value(Group::Run, "run.concurrency", "concurrency", "LABELCAST_CONCURRENCY", "N", "1",
        "Labels to publish at once, at most 16 (to a file or stdout always 1)"),
    value(Group::Run, "run.deadline", "deadline", "LABELCAST_DEADLINE", "DURATION", "",
        "Stop after this time as on SIGTERM; the next run resumes"),
    value(Group::Run, "run.resume_window", "resume-window", "LABELCAST_RESUME_WINDOW", "DURATION", "1h",
        "Time within which an unfinished run is resumed; after that a new run starts"),
    switch(Group::Run, "run.no_resume", "no-resume", "LABELCAST_NO_RESUME",
        "Always start a new run"),
    value(Group::Run, "run.suppress_for", "suppress-for", "LABELCAST_SUPPRESS_FOR", "DURATION", "",
        "Do not publish a chat again that was published to the queue within this time"),
    switch(Group::Run, "run.only_new", "only-new", "LABELCAST_ONLY_NEW",
        "Publish only chats that were not in the label's last list"),
    switch(Group::Run, "run.removed", "removed", "LABELCAST_REMOVED",
        "Also publish chats that have left the label, to the queue QUEUE:removed"),
    value(Group::Run, "run.min_age", "min-age", "LABELCAST_MIN_AGE", "DURATION", "",
        "Publish only chats that have been in the label for this time"),
    value(Group::Run, "run.max_change", "max-change", "LABELCAST_MAX_CHANGE", "PERCENT", "50",
        "End with 80 and remove nobody if more than this of 20 or more members have left"),
    value(Group::Run, "run.min_chats", "min-chats", "LABELCAST_MIN_CHATS", "N", "0",
        "Publish nothing if the list has fewer chats"),
    value(Group::Run, "run.max_shrink", "max-shrink", "LABELCAST_MAX_SHRINK", "PERCENT", "",
        "Publish nothing if the list shrank by more than this since the last complete run"),
    value(Group::Run, "run.max_invalid", "max-invalid", "LABELCAST_MAX_INVALID", "N", "0",
        "Number of entries without a valid chat id that are accepted"),
    switch(Group::Run, "run.skip_label_check", "skip-label-check", "LABELCAST_SKIP_LABEL_CHECK",
        "Do not check first that the label exists"),
    switch(Group::Api, "run.accept_empty", "accept-empty", "LABELCAST_ACCEPT_EMPTY",
        "Trust an empty list, even if the response may indicate an error"),
    switch(Group::Api, "run.ignore_paging", "ignore-paging", "LABELCAST_IGNORE_PAGING",
        "Accept a list that says that it is one page of several"),

    Setting { is_sensitive: true, ..value(Group::Sink, "sink.url", "sink", "LABELCAST_SINK", "URL", "-",
        "Sink: - (JSON lines on stdout), file:PATH, redis:, rediss:, redis+cluster:, rediss+cluster:, redis+sentinel:, rediss+sentinel:, amqp:, amqps:, rabbitmq-stream:, rabbitmq-stream+tls:") },
    Setting { is_sensitive: true, ..value(Group::Sink, "sink.url_file", "sink-file", "LABELCAST_SINK_FILE", "PATH", "",
        "File with the sink's URL, for a URL with a password") },
    value(Group::Sink, "sink.queue", "queue", "LABELCAST_QUEUE", "NAME", "labelcast:{label_id}",
        "Queue name; {label_id} and {instance_id} are replaced"),
    value(Group::Sink, "sink.format", "format", "LABELCAST_FORMAT", "fields|json|cloudevents", "",
        "Message format; default: fields for Redis, else json"),
    value(Group::Sink, "sink.ids_per_message", "ids-per-message", "LABELCAST_IDS_PER_MESSAGE", "N", "1",
        "Chat ids in one message, at most 10000"),
    switch(Group::Sink, "sink.include_names", "include-names", "LABELCAST_INCLUDE_NAMES",
        "Also publish the chats' names, which are personal data"),
    value(Group::Sink, "sink.retain", "retain", "LABELCAST_RETAIN", "DURATION|forever", "7d",
        "Retention of messages, checkpoints and manifests"),
    value(Group::Sink, "sink.max_pending", "max-pending", "LABELCAST_MAX_PENDING", "N", "",
        "Wait while N or more messages are pending for consumers"),
    switch(Group::Sink, "sink.marker", "marker", "LABELCAST_MARKER",
        "Also publish a message at the start and at the end of a run"),
    value(Group::Sink, "sink.partitions", "partitions", "LABELCAST_PARTITIONS", "N", "",
        "Spread the chats over N streams, QUEUE:{0} and so on (Redis)"),
    value(Group::Sink, "sink.exchange", "exchange", "LABELCAST_EXCHANGE", "NAME", "",
        "Publish to this exchange, with the queue's name as routing key (RabbitMQ)"),
    value(Group::Sink, "sink.queue_type", "queue-type", "LABELCAST_QUEUE_TYPE", "quorum|classic|stream", "quorum",
        "Type of the declared queue (RabbitMQ)"),
    switch(Group::Sink, "sink.no_declare", "no-declare", "LABELCAST_NO_DECLARE",
        "Do not declare the queue; it must exist (RabbitMQ)"),
    value(Group::Sink, "sink.min_replicas", "min-replicas", "LABELCAST_MIN_REPLICAS", "N", "0",
        "Confirm a batch only when N replicas have it (Redis)"),

    Setting { is_sensitive: true, ..value(Group::State, "state.url", "state", "LABELCAST_STATE", "URL", "",
        "Where to keep what is known between runs: redis:// and so on, or file:PATH; default: the Redis sink's own server") },
    switch(Group::State, "state.track", "track", "LABELCAST_TRACK",
        "Record which chats are in the label"),

    value(Group::Listen, "listen.bind", "bind", "LABELCAST_LISTEN_BIND", "ADDR", "127.0.0.1:8080",
        "Address that webhooks and the dashboard are served on; port 0 selects a free port"),
    value(Group::Listen, "listen.webhook_auth", "webhook-auth", "LABELCAST_LISTEN_WEBHOOK_AUTH", "hmac-sha512|hmac-sha256|secret|none", "hmac-sha512",
        "Authentication of webhooks: HMAC of the body, plain secret, or none"),
    Setting { is_sensitive: true, ..value(Group::Listen, "listen.webhook_secret_file", "webhook-secret-file", "LABELCAST_WEBHOOK_SECRET_FILE", "PATH", "",
        "File with the secrets of webhooks, one a line; without it, those in LABELCAST_WEBHOOK_SECRET are used") },
    value(Group::Listen, "listen.webhook_header", "webhook-header", "LABELCAST_LISTEN_WEBHOOK_HEADER", "NAME", "",
        "Header with the signature or the secret; default: X-Webhook-Hmac, for a secret X-Webhook-Secret"),
    value(Group::Listen, "listen.session", "session", "LABELCAST_LISTEN_SESSION", "NAME", "",
        "Session whose webhooks are accepted; default: the instance id"),
    value(Group::Listen, "listen.reconcile", "reconcile", "LABELCAST_LISTEN_RECONCILE", "DURATION", "",
        "Also compare the lists with the state this often, as `run --only-new` does"),
    Setting { is_sensitive: true, ..value(Group::Listen, "listen.dashboard_token_file", "dashboard-token-file", "LABELCAST_DASHBOARD_TOKEN_FILE", "PATH", "",
        "File with the token of the dashboard; without it, the one in LABELCAST_DASHBOARD_TOKEN is used") },

    value(Group::Enrich, "enrich.from", "from", "LABELCAST_ENRICH_FROM", "QUEUE", "",
        "Queue to take chat ids from"),
    value(Group::Enrich, "enrich.to", "to", "LABELCAST_ENRICH_TO", "QUEUE", "",
        "Queue to publish records to; ids that cannot be looked up go to QUEUE:failed"),
    value(Group::Enrich, "enrich.group", "group", "LABELCAST_ENRICH_GROUP", "NAME", "labelcast-enrich",
        "Consumer group, which workers share (Redis)"),
    value(Group::Enrich, "enrich.concurrency", "concurrency", "LABELCAST_ENRICH_CONCURRENCY", "N", "4",
        "Contacts to look up at once"),
    value(Group::Enrich, "enrich.rate", "rate", "LABELCAST_ENRICH_RATE", "N/s|N/m|N/h", "5/s",
        "Requests to the API in a time, by this process"),
    Setting { is_list: true, ..value(Group::Enrich, "enrich.include", "include", "LABELCAST_ENRICH_INCLUDE", "photo,about", "",
        "Also ask for the URL of the picture, or for the text about the person: a request more for each") },
    Setting { is_list: true, ..value(Group::Enrich, "enrich.fields", "fields", "LABELCAST_ENRICH_FIELDS", "NAMES", "name,push_name,number,is_business,about,picture_url",
        "Publish only these members of a contact") },
    switch(Group::Enrich, "enrich.check_exists", "check-exists", "LABELCAST_ENRICH_CHECK_EXISTS",
        "Ask first whether a number exists: some engines also answer for numbers that do not"),
    value(Group::Enrich, "enrich.attempts", "attempts", "LABELCAST_ENRICH_ATTEMPTS", "N", "5",
        "Set a chat aside after this many failures"),
    switch(Group::Enrich, "enrich.drain", "drain", "LABELCAST_ENRICH_DRAIN",
        "End when the queue is empty"),
    value(Group::Enrich, "enrich.metrics_bind", "metrics-bind", "LABELCAST_ENRICH_METRICS_BIND", "ADDR", "",
        "Serve metrics on this address, such as 127.0.0.1:9090; port 0 selects a free port"),

    value(Group::Report, "report.format", "report", "LABELCAST_REPORT", "json|text|none", "text",
        "Report at the end: text on stderr, or a JSON line on stdout"),
    value(Group::Report, "report.file", "report-file", "LABELCAST_REPORT_FILE", "PATH", "",
        "Also write the JSON report to a file"),
    value(Group::Report, "report.metrics_file", "metrics-file", "LABELCAST_METRICS_FILE", "PATH", "",
        "Also write metrics to a file, in Prometheus' text format"),
    Setting { is_sensitive: true, ..value(Group::Report, "report.metrics_push", "metrics-push", "LABELCAST_METRICS_PUSH", "URL", "",
        "Also push metrics to this Pushgateway") },
    value(Group::Report, "report.progress", "progress", "LABELCAST_PROGRESS", "auto|always|never", "auto",
        "Progress on stderr; auto: on a terminal only"),

    value(Group::Log, "log.format", "log-format", "LABELCAST_LOG_FORMAT", "text|json", "",
        "Log format on stderr; default: text on a terminal, else JSON"),
    value(Group::Log, "log.level", "log-level", "RUST_LOG", "LEVEL", "info",
        "Log level: error, warn, info, debug or trace; -v is debug, -vv is trace"),
    switch(Group::Log, "log.quiet", "quiet", "LABELCAST_QUIET",
        "Log errors only; no text report, no progress"),
];
