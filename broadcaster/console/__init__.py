"""The console: web pages for the people who run an event, and the sessions by which their browsers call the API.

sessions.py     who is signed in, kept in the store
recognition.py  the API's caller by a session's cookie, safe from other sites
preview.py      a short-lived device token for the preview panel
assets.py       the pages' files, and the headers they are served with
app.py          the routes, and how console and API stand on one port
static/         plain ES modules, CSS, SVG: no build step
"""
