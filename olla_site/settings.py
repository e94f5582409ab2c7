"""Django settings, and the few environment values that must be known before Django is.

Everything has an embedded default: SQLite in WAL mode in the data folder, in-process cache and channel
layer, keys made on first start. The product's own settings (`OLLA_*`) are declared in `endpoints/conf.py`;
only what Django itself needs is read here.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from proxy.headers import EXPOSED
from proxy.product import VERSION  # noqa: F401

BASE_DIR = Path(__file__).resolve().parent.parent


def env_text(name: str, default: str) -> str:
    """The environment value of `name`, stripped; `default` when unset or empty."""
    return os.environ.get(name, "").strip() or default


def env_bool(name: str, *, default: bool) -> bool:
    """Read 1/true/yes/on or 0/false/no/off; anything else is refused with the variable's name."""
    text = env_text(name, "").lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    if not text:
        return default
    raise ImproperlyConfigured(f"{name} is {text!r}: use 1 or 0.")


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """One of a few words, in whatever case; anything else is refused with the variable's name."""
    text = env_text(name, default)
    found = {choice.lower(): choice for choice in choices}.get(text.lower())
    if found is None:
        raise ImproperlyConfigured(f"{name} is {text!r}: use one of {', '.join(choices)}.")
    return found


def env_number(name: str, default: int) -> int:
    """A whole number from 1 on; anything else is refused with the variable's name."""
    text = env_text(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ImproperlyConfigured(f"{name} is {text!r}: use a whole number from 1 on.")
    return int(text)


def env_list(name: str) -> list[str]:
    """A comma-separated environment value as a list without empty parts."""
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def kept_secret(path: Path, fresh: str) -> str:
    """The text of `path`, written first (mode 0600) with `fresh` when the file does not exist.

    Two processes may start at once: the file is written under another name and linked into place, so that
    both read the winner's text and never half of it.
    """
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(fresh + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    text = path.read_text().strip()
    if not text:
        raise ImproperlyConfigured(f"{path} is empty. Restore it from a backup, or delete it to start anew.")
    return text


DATA_DIR = Path(env_text("OLLA_DATA_DIR", str(BASE_DIR / "data"))).resolve()
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

SECRET_KEY = os.environ.get("OLLA_SECRET_KEY") or kept_secret(DATA_DIR / "secret_key", secrets.token_urlsafe(48))
# One Fernet key a line, newest first; older ones only decrypt.
ENCRYPTION_KEYS = (
    os.environ.get("OLLA_ENCRYPTION_KEYS")
    or kept_secret(DATA_DIR / "encryption_keys", Fernet.generate_key().decode())
).split()

DEBUG = env_bool("OLLA_DEBUG", default=False)
HTTPS = env_bool("OLLA_HTTPS", default=False)
# The Host policy (olla_site/host_policy.py) runs before both doors; Django's own check would only repeat it.
ALLOWED_HOSTS = ["*"]
OLLA_ALLOWED_HOSTS = env_list("OLLA_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env_list("OLLA_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "olla_site.apps.OllaSiteConfig",
    "olla_site.portal.apps.PortalConfig",
    "daphne",
    "endpoints.apps.EndpointsConfig",
    "proxy.apps.ProxyConfig",
    "channels",
    "corsheaders",
    "django_ratelimit",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
]

# The pages' door. Machine traffic has its own list, API_MIDDLEWARE below.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # Two hundred endpoints are 200 KB of table. Its padding of random length and Django's masked CSRF token keep
    # secrets of a page from being guessed by its size (BREACH).
    "olla_site.portal.middleware.GZipWholePages",
    "olla_site.portal.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
API_MIDDLEWARE = ["proxy.middleware.CorsMiddleware"]

ROOT_URLCONF = "olla_site.urls"
ASGI_APPLICATION = "olla_site.asgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "olla_site.portal.navigation.frame",
            ]
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "olla.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 5,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    # Counters of logins: a cache of their own, so that filling another one cannot push them out.
    "counters": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "counters",
        "OPTIONS": {"MAX_ENTRIES": 20_000},
    },
}
RATELIMIT_USE_CACHE = "counters"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
# Logins are counted in this process's cache. django-ratelimit would refuse a cache that is not shared: here
# one process answers the pages, so the count is right (docs/architecture.md).
SILENCED_SYSTEM_CHECKS = [
    "django_ratelimit.E003",
    "django_ratelimit.W001",
    # Other names of the domain and the browsers' preload list are not this installation's to decide, and plain
    # http is turned away by the proxy that ends TLS.
    "security.W005",
    "security.W008",
    "security.W021",
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "portal:login"
LOGIN_REDIRECT_URL = "portal:home"
LOGOUT_REDIRECT_URL = "portal:login"

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

LANGUAGE_CODE = "en-us"
TIME_ZONE = env_text("OLLA_TIME_ZONE", "UTC")
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "olla_site.static_files.VersionedStorage"},
}

# Every record is cleaned of secrets when it is made, whoever handles it.
LOGGING_CONFIG = "olla_site.clean_records.configure_logging"
LOG_LEVEL = env_choice("OLLA_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOG_FORMAT = env_choice("OLLA_LOG_FORMAT", "text", ("text", "json"))
LOG_FILE = env_text("OLLA_LOG_FILE", "")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": f"olla_site.log_lines.{'JsonFormatter' if LOG_FORMAT == 'json' else 'TextFormatter'}"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {name: {"level": LOG_LEVEL} for name in ("olla_site", "endpoints", "proxy", "translation")},
}
if LOG_FILE:
    LOGGING["handlers"]["file"] = {
        "class": "olla_site.log_file.SharedRotatingFile",
        "filename": str(Path(LOG_FILE).expanduser().resolve()),
        "maxBytes": env_number("OLLA_LOG_FILE_SIZE", 10 * 1024 * 1024),
        "backupCount": env_number("OLLA_LOG_FILE_COUNT", 7),
        "formatter": "line",
    }
    LOGGING["root"]["handlers"].append("file")

# CORS of the API door (django-cors-headers). Everyone may call it from a page by default, never with cookies.
CORS_URLS_REGEX = r"^/(olla(/|$)|internal/health$|version$)"
_cors_origins = env_list("OLLA_CORS_ORIGINS") if "OLLA_CORS_ORIGINS" in os.environ else ["*"]
CORS_ALLOW_ALL_ORIGINS = _cors_origins == ["*"]
CORS_ALLOWED_ORIGINS = [] if CORS_ALLOW_ALL_ORIGINS else _cors_origins
CORS_ALLOW_METHODS = ["GET", "POST", "OPTIONS"]
CORS_ALLOW_HEADERS = ["content-type", "authorization", "x-api-key", "anthropic-version", "anthropic-beta"]
CORS_ALLOW_CREDENTIALS = False
CORS_PREFLIGHT_MAX_AGE = 300
CORS_EXPOSE_HEADERS = list(EXPOSED)
