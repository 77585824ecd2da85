//! Statements of an API about pages, which tell whether a list is one page of several.

/// A member that says something about pages. Names are compared without case and punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PagingMember {
    /// The next page, as a link, a cursor or a number.
    Next,
    /// A cursor to this page or to the next.
    Cursor,
    /// A flag: more entries follow.
    HasMore,
    /// A flag: this is the last page.
    IsLast,
    /// The number of this page.
    CurrentPage,
    /// The number of the last page, or the number of pages.
    LastPage,
    /// The total number of entries.
    Total,
    /// The number of entries before this page.
    Offset,
    /// The page before this one, as a link, a number or a flag.
    Previous,
    /// The size of a page, or its position in the list.
    Size,
    /// The relation of a link, as in `{"rel":"next","href":…}`.
    Relation,
    /// A link to this page, to the first or to the last one, or a container of paging members.
    Other,
}

impl PagingMember {
    /// Returns what a normalised name (lower case, letters and digits only) says about pages.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "next" | "nextpage" | "nextpageurl" | "nextpageuri" | "nextpagelink" | "nextlink"
            | "nexturl" | "nexturi" | "nexthref" | "nextcursor" | "nexttoken" | "nextpagetoken"
            | "nextpagenumber" | "nextpagecursor" | "nextoffset" | "nextkey" | "nextmarker"
            | "nextbatch" | "nextset" | "nextresults" | "nextrecordsurl" | "odatanextlink"
            | "opcnextpage" | "continue" | "continuation" | "continuationtoken"
            | "continuationkey" | "mscontinuation" | "pagingstate" | "lastevaluatedkey"
            | "scrollid" => Self::Next,
            "cursor" | "after" => Self::Cursor,
            "hasmore" | "hasnext" | "hasnextpage" | "hasmorepages" | "hasmoreresults"
            | "hasmoreitems" | "hasmoredata" | "morepages" | "moreresults" | "moreitems"
            | "moredata" | "moreavailable" | "nextpageavailable" | "more" | "truncated"
            | "istruncated" | "incomplete" | "isincomplete" | "incompleteresults" | "partial"
            | "ispartial" => Self::HasMore,
            "last" | "islast" | "islastpage" | "endoflist" | "isfinal" | "complete"
            | "iscomplete" | "completed" | "done" | "finished" | "eof" | "end" => Self::IsLast,
            "page" | "currentpage" | "pagenumber" | "pagenum" | "pageno" | "current" => {
                Self::CurrentPage
            }
            "lastpage" | "lastpagenumber" | "totalpages" | "totalpage" | "pagestotal"
            | "pagetotal" | "pagecount" | "pagescount" | "numpages" | "numberofpages"
            | "maxpage" | "pages" => Self::LastPage,
            "count" | "itemcount" | "itemscount" | "itemstotal" | "listtotal" | "recordstotal"
            | "recordsfiltered" | "recordcount" | "resultcount" | "resultscount" | "chatcount"
            | "chatscount" | "numchats" | "numfound" | "nbhits" | "numberofelements"
            | "odatacount" => Self::Total,
            "offset" | "skip" | "startat" => Self::Offset,
            "prev" | "previous" | "prevpage" | "previouspage" | "prevpageurl"
            | "previouspageurl" | "hasprev" | "hasprevious" | "hasprevpage" | "haspreviouspage" => {
                Self::Previous
            }
            "perpage" | "limit" | "pagesize" | "itemsperpage" | "size" | "from" | "to" | "take"
            | "maxresults" | "start" | "rows" | "pagingcounter" => Self::Size,
            "rel" => Self::Relation,
            "first" | "firstpage" | "firstpageurl" | "lastpageurl" | "prevcursor"
            | "previouscursor" | "self" | "before" | "endcursor" | "startcursor" | "links"
            | "link" | "paging" | "pagination" | "paginator" | "paginatorinfo" | "pageinfo"
            | "pagemeta" | "pageable" | "pager" | "cursors" | "resultinfo" | "sort" => Self::Other,
            other if is_total(other) => Self::Total,
            _ => return None,
        })
    }
}

impl PagingMember {
    /// Returns whether the value is a number or a flag. If it is a text instead, it means something
    /// else.
    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            Self::HasMore
                | Self::CurrentPage
                | Self::LastPage
                | Self::Total
                | Self::Offset
                | Self::Size
        )
    }
}

/// Returns whether a normalised name is that of a total of entries, like `totalRecords`.
fn is_total(name: &str) -> bool {
    const OF_OTHERS: [&str; 7] = [
        "time", "duration", "bytes", "unread", "label", "cost", "credit",
    ];
    name.starts_with("total") && !OF_OTHERS.iter().any(|part| name.contains(part))
}

/// The value of a member beside the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// No statement: `null`, `""`, `[]` or `{}`.
    Nothing,
    Bool(bool),
    /// A number, or a string that contains one, as it was written.
    Number(&'a str, f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// Reads a string, which may contain a flag or a number.
    pub(crate) fn of_text(text: &'a str) -> Self {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "" | "null" => Self::Nothing,
            "true" | "yes" => Self::Bool(true),
            "false" | "no" => Self::Bool(false),
            _ => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Self::Number(text, number),
                _ => Self::Text(text),
            },
        }
    }

    /// Returns whether the value is a link, a cursor or a page: anything but nothing, false and 0.
    fn is_something(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bool(flag) => flag,
            Self::Number(_, number) => number != 0.0,
            Self::Text(_) => true,
        }
    }
}

/// The statements about pages found so far, in the headers and in the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paging {
    /// The path of a member that says that more pages follow or that entries came before.
    more: Option<String>,
    /// The path of a cursor, which may be that of this page or of the next.
    cursor: Option<String>,
    says_no_more: bool,
    current: Option<f64>,
    last: Option<f64>,
    /// The highest total.
    total: Option<f64>,
}

impl Paging {
    /// Records a member. `path` is quoted in errors.
    pub(crate) fn note(&mut self, member: PagingMember, path: &str, value: Scalar<'_>) {
        match (member, value) {
            (PagingMember::Next, value) if value.is_something() => self.note_more(path),
            (PagingMember::Cursor, value) if value.is_something() => {
                self.cursor = Some(path.to_owned());
            }
            (PagingMember::Previous, value) if value.is_something() => self.note_more(path),
            (PagingMember::HasMore, value) if value.is_something() => self.note_more(path),
            (PagingMember::HasMore, _) => self.says_no_more = true,
            (PagingMember::IsLast | PagingMember::LastPage, Scalar::Bool(true)) => {
                self.says_no_more = true;
            }
            (PagingMember::IsLast | PagingMember::LastPage, Scalar::Bool(false)) => {
                self.note_more(path);
            }
            (PagingMember::CurrentPage, Scalar::Number(_, page)) => self.current = Some(page),
            (PagingMember::CurrentPage, Scalar::Text(text)) => self.note_page_of(text),
            (PagingMember::LastPage | PagingMember::IsLast, Scalar::Number(_, page)) => {
                self.last = Some(self.last.map_or(page, |last| last.max(page)));
            }
            (PagingMember::Total, Scalar::Number(_, total)) => {
                self.total = Some(self.total.map_or(total, |known| known.max(total)));
            }
            (PagingMember::Offset, Scalar::Number(_, offset)) if offset > 0.0 => {
                self.note_more(path);
            }
            (PagingMember::Relation, Scalar::Text(relation))
                if relation.split_whitespace().any(is_next) =>
            {
                self.note_more(path);
            }
            _ => {}
        }
    }

    /// Records a text like `1/9` or `1 of 9`.
    fn note_page_of(&mut self, text: &str) {
        let (current, last) = match text.split_once('/').or_else(|| text.split_once(" of ")) {
            Some((current, last)) => (current.trim().parse(), last.trim().parse()),
            None => return,
        };
        if let (Ok(current), Ok(last)) = (current, last) {
            (self.current, self.last) = (Some(current), Some(last));
        }
    }

    /// Records that a member says that the list is not complete.
    pub(crate) fn note_more(&mut self, path: &str) {
        self.more.get_or_insert_with(|| path.to_owned());
    }

    /// Returns whether the list is one page of several, however many entries it has.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.why(u64::MAX).is_some()
    }

    /// Returns why a list with this many entries is one page of several, or `None` if it is
    /// complete.
    pub(crate) fn why(&self, entries: u64) -> Option<String> {
        if let Some(path) = &self.more {
            return Some(format!("“{path}” says that the list is incomplete"));
        }
        if let Some(path) = self.cursor.as_ref().filter(|_| !self.says_no_more) {
            return Some(format!("“{path}” points to another page"));
        }
        match (self.current, self.last) {
            (Some(current), Some(last)) if last > 1.0 => {
                return Some(format!("it is page {current} of {last}"));
            }
            (None, Some(last)) if last > 1.0 => {
                return Some(format!("there are {last} pages"));
            }
            (Some(current), _) if current > 1.0 => return Some(format!("it is page {current}")),
            _ => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "lists are shorter than 2^53")]
        let total = self.total.filter(|total| *total > entries as f64)?;
        Some(format!(
            "it states a total of {total} entries but contains {entries}"
        ))
    }
}

/// Returns whether the relation of a link is that of the next page.
pub(crate) fn is_next(relation: &str) -> bool {
    relation.eq_ignore_ascii_case("next")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(facts: &[(&str, Scalar<'_>)], entries: u64) -> Option<String> {
        let mut paging = Paging::default();
        for (name, value) in facts {
            paging.note(
                PagingMember::of(name).unwrap_or(PagingMember::Other),
                name,
                *value,
            );
        }
        paging.why(entries)
    }

    fn number(number: u32) -> Scalar<'static> {
        Scalar::Number("", f64::from(number))
    }

    #[test]
    fn one_page_of_several_is_recognised() {
        let text = Scalar::Text;
        for facts in [
            &[("next", text("/chats?page=2"))][..],
            &[
                ("nextcursor", text("abc")),
                ("hasmore", Scalar::Bool(false)),
            ],
            &[("nextpage", number(2))],
            &[("cursor", text("abc"))],
            &[("hasmore", Scalar::Bool(true))],
            &[("last", Scalar::Bool(false))],
            &[("currentpage", number(1)), ("lastpage", number(9))],
            &[("page", number(0)), ("totalpages", number(2))],
            &[("pages", number(2))],
            &[("page", number(3))],
            &[("offset", number(50))],
            &[("rel", text("next"))],
            &[("total", number(3))],
            &[("totalsize", number(3))],
            &[("lastpage", Scalar::Bool(false))],
            &[("page", text("1 of 9"))],
            &[("prev", text("/chats?page=1")), ("next", Scalar::Nothing)],
        ] {
            assert!(why(facts, 2).is_some(), "{facts:?}");
        }
    }

    #[test]
    fn a_complete_list_is_not_a_page() {
        for facts in [
            &[("next", Scalar::Nothing)][..],
            &[("next", Scalar::Bool(false)), ("prev", Scalar::Nothing)],
            &[("cursor", number(0))],
            &[("totaltimems", number(250))],
            &[("nextpage", number(0))],
            &[
                ("cursor", Scalar::Text("abc")),
                ("hasmore", Scalar::Bool(false)),
            ],
            &[("currentpage", number(1)), ("lastpage", number(1))],
            // Counted from zero.
            &[("page", number(0)), ("totalpages", number(1))],
            &[("last", Scalar::Bool(true)), ("total", number(2))],
            &[("last", Scalar::Text("https://api/chats?page=1"))],
            &[("count", number(1)), ("limit", number(100))],
            &[("rel", Scalar::Text("self"))],
        ] {
            assert_eq!(why(facts, 2), None, "{facts:?}");
        }
    }
}
