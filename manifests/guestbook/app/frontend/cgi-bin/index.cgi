#!/bin/sh
# The guestbook's only page. It finds the store by its DNS name: the Service
# "store" in the same namespace.

# request METHOD [BODY]: HTTP/1.0 to the store; prints the response's body.
request() {
	printf '%s /cgi-bin/entries HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s' \
		"$1" "$STORE_HOST" "$(printf %s "$2" | wc -c)" "$2" |
		nc -w 3 "$STORE_HOST" "$STORE_PORT" | sed '1,/^\r*$/d'
}

# escape makes text safe to show in HTML.
escape() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'; }

if [ "$REQUEST_METHOD" = POST ]; then
	form=$(head -c "${CONTENT_LENGTH:-0}")
	entry=$(httpd -d "$(printf %s "${form#entry=}" | tr + ' ')")
	request POST "$entry" > /dev/null
	printf 'Status: 303 See Other\r\nLocation: /\r\n\r\n'
	exit
fi

entries=$(request GET | escape | sed 's/.*/<li>&<\/li>/')
title=$(echo "$TITLE" | escape)
printf 'Content-Type: text/html; charset=utf-8\r\n\r\n'
cat << PAGE
<!doctype html>
<title>$title</title>
<h1>$title</h1>
<form method=post action=/cgi-bin/index.cgi><input name=entry autofocus required> <button>Sign</button></form>
<ul>
$entries
</ul>
<p>served by $POD_NAME on $NODE_NAME</p>
PAGE
