-- Who may call the API. A key is 256 random bits, so its plain SHA-256 cannot be reversed.
CREATE TABLE api_keys (
    id         uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    name       text        NOT NULL,
    key_sha256 bytea       NOT NULL,
    scopes     text[]      NOT NULL,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    -- A name says who did something, so it is never used twice, not even after a revocation.
    CONSTRAINT api_keys_name UNIQUE (name),
    CONSTRAINT api_keys_key_sha256 UNIQUE (key_sha256),
    CONSTRAINT api_keys_name_length CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT api_keys_key_sha256_length CHECK (octet_length(key_sha256) = 32),
    CONSTRAINT api_keys_scopes_known
        CHECK (cardinality(scopes) >= 1 AND scopes <@ ARRAY['read', 'write', 'operate'])
);
