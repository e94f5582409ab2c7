"""The internal-team portal: one module a page, templates and static files beside them.

How to add a page:

1. A module (`models_page.py`) with its view, guarded by `@page()` (or `@page(Right.TRY)`; a POST that changes
   something by `@action(Right.OPERATE)`), sync or async. Read stored state only (`loading.current()`, tables in a
   constant number of queries); never ask a backend to draw a page.
2. A line in `urls.py`, and one in `navigation.py`'s ITEMS if it belongs in the header.
3. A template that extends `portal/base.html`: blocks `title`, `styles`, `scripts` (with `defer`), `content`. The
   context has `rights` (`rights.operate`, `rights.try_models`, `rights.administer`). No inline script, style or
   event attribute: the content security policy refuses them. Style an element from a script by class, or by
   `element.style` where a number must be set.
4. Parts: `parts/code.html` (id= code= label=), `parts/field.html` (field=). Classes: page-head, panel, grid, tiles
   and tile, table-box with table, tag, notice, button (-quiet, -danger, -small), filters, field with input, tabs,
   empty: see `portal.css`.
5. htmx is on every page and sends the CSRF token; a plain fetch sends `X-CSRFToken: olla.csrf()`. Scripts show
   messages with `olla.toast(text, level)`; answers to htmx with `say(response, text, level)` of `answers.py`.
6. What people typed or backends sent goes into pages by Django's escaping or `textContent`, never `innerHTML`.
7. Tests: `tests/portal/` (test client; `tests/portal/conftest.py` has `viewer`, `operator` and others), a line in
   `test_access.py`'s PAGES, its number of queries in `every_page.py`, its URL name in the list of
   `tests/browser/test_accessibility.py`, and a picture in `tests/browser/`.
"""
